"""Where the pairs of the MCR data set lie, and which of them are for validation.

The data set comes as pictures, or as the sensors' bytes:

- ``Color_RAW_Input/C00001_48mp_0x8_0x00ff.tif``, ``Mono_GT/M_Align_00001_48mp_0x8_0x2fff.tif`` and
  ``RGB_GT/C00001_48mp_0x8_0x2fff.jpg``. All shutters are inputs, as published, the longest too.
- A folder of ``.raw`` files, ``C00400_48mp_0x8_0x00ff.raw`` and so on. Inputs are the frames whose shutter is
  shorter than the scene's longest. The two cameras are not aligned here.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path, PureWindowsPath

import numpy as np

from hessrank.data.raw.exposure import McrName, parse_mcr
from hessrank.data.sample_folder import IMAGES, kind_of
from hessrank.distill.tasks.lowlight.data.mcr_pairs import McrPair
from hessrank.distill.tasks.lowlight.data.pattern import align
from hessrank.distill.tasks.lowlight.network import SIZE_MULTIPLE
from hessrank.errors import DataError
from hessrank.text import one_line

MCR_NAME = "Mono_Colored_RAW_Paired_DATASET"
"""The folder that the published archive unpacks to."""
MCR_LAYOUT = (
    "Color_RAW_Input/C….tif, Mono_GT/M….tif and RGB_GT/C….jpg (maybe below "
    f"{MCR_NAME}), or C….raw and M….raw files of all shutters"
)
"""What lies in the data set's folder."""
_TRAINING_LIST = Path("random_path_list/train/train_c_path.npy")
_PATTERN = "RGGB"
_SCENE = re.compile(r"\d{5}(?=_)")

Split = tuple[list[McrPair], list[McrPair], str]
"""Pairs for training, pairs for validation, and how they were parted, in a sentence."""


def is_mcr(folder: Path) -> bool:
    """Return whether a folder looks like the MCR data set, as pictures or as ``.raw`` files."""
    return _published(folder) is not None or any(parse_mcr(path) for path in folder.glob("*.raw"))


def mcr_pairs(root: Path, *, pattern: str = _PATTERN) -> Split:
    """Return the pairs for training and for validation, and how they were parted.

    The published lists (``random_path_list/train/train_c_path.npy`` and ``…/test/test_c_path.npy``, in the
    data set's folder or beside it) are taken where they are. Else the last tenth of the scenes is for
    validation; of a single scene, it is the right quarter of every frame.

    Args:
        root: the data set's folder, or the one it lies in.
        pattern: color filters that the network should see: RGGB, or another phase of it.

    Raises:
        DataError: the folder is laid out otherwise, a frame has no target, a list names a frame that is not
            there, or the mosaic has no such phase.
    """
    folder = _published(root)
    pairs = _raw_pairs(root) if folder is None else _published_pairs(folder)
    lists = [] if folder is None else [near / _TRAINING_LIST for near in (folder, folder.parent)]
    found = next((path for path in lists if path.is_file()), None)
    training, validation, note = _split_by_lists(found, pairs) if found else _split_by_scene(pairs)
    offset = align(_PATTERN, pattern)
    if offset is None:
        raise DataError(f"{root}: the mosaic of MCR is {_PATTERN}, which has no phase {pattern}; leave pattern out")
    return _cut(training, *offset), _cut(validation, *offset), note


def _published(root: Path) -> Path | None:
    return next((place for place in (root, root / MCR_NAME) if (place / "Color_RAW_Input").is_dir()), None)


def _published_pairs(folder: Path) -> list[McrPair]:
    rgb, mono = (_of_scenes(folder / name) for name in ("RGB_GT", "Mono_GT"))
    pairs = []
    for dark in _images(folder / "Color_RAW_Input"):
        name = parse_mcr(dark)
        if name is None or not name.color:
            raise DataError(
                f"{dark}: the name says no scene and shutter; it should be like C00001_48mp_0x8_0x00ff.tif"
            )
        pairs.append(_pair(dark, name, rgb.get(name.scene), mono.get(name.scene)))
    return pairs


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder; MCR has {MCR_LAYOUT}")
    images = sorted(path for path in folder.iterdir() if kind_of(path) == IMAGES)
    if not images:
        raise DataError(f"{folder}: there is no image in it; MCR has {MCR_LAYOUT}")
    return images


def _of_scenes(folder: Path) -> dict[int, Path]:
    """Return the image of each scene; of several, that of the longest shutter, the last digits of its name."""
    images = sorted(_images(folder), key=lambda path: path.stem[-4:])
    return {int(scene.group()): path for path in images if (scene := _SCENE.search(path.name))}


def _raw_pairs(folder: Path) -> list[McrPair]:
    names = {path: name for path in sorted(folder.glob("*.raw")) if (name := parse_mcr(path))}
    longest = {(name.color, name.scene): path for path, name in names.items() if name.gain == 1}
    pairs = [
        _pair(path, name, longest.get((True, name.scene)), longest.get((False, name.scene)))
        for path, name in names.items()
        if name.color and name.gain > 1
    ]
    if not pairs:
        raise DataError(f"{folder}: no frame of the color camera with a short shutter; MCR has {MCR_LAYOUT}")
    return pairs


def _pair(dark: Path, name: McrName, rgb: Path | None, mono: Path | None) -> McrPair:
    if rgb is None or mono is None:
        camera = "color" if rgb is None else "monochrome"
        raise DataError(f"{dark}: there is no {camera} picture of scene {name.scene} with its longest shutter")
    return McrPair(name.scene, dark, rgb, mono, name.gain)


def _split_by_lists(path: Path, pairs: list[McrPair]) -> Split:
    by_name = {pair.dark.name: pair for pair in pairs}
    training = _listed(path, by_name)
    test = path.parents[1] / "test" / "test_c_path.npy"
    validation = _listed(test, by_name) if test.is_file() else [p for p in pairs if p not in training]
    if not (training and validation):
        raise DataError(f"{path}: the list leaves no pair for {'validation' if training else 'training'}")
    shared = {pair.scene for pair in training} & {pair.scene for pair in validation}
    seen = f"; {len(shared)} scenes are in both, with other shutters" if shared else ""
    return training, validation, f"training and validation as {path.parents[1]} says{seen}"


def _listed(path: Path, by_name: dict[str, McrPair]) -> list[McrPair]:
    try:
        entries = np.load(path, allow_pickle=False).ravel().tolist()
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"{path}: this is no list of paths that numpy reads: {one_line(error)}") from error
    names = [PureWindowsPath(str(entry)).name for entry in entries]  # it knows both kinds of slashes
    for number, name in enumerate(names):
        if name not in by_name:
            raise DataError(f"{path}: entry {number} names {name!r}, which is not in Color_RAW_Input")
    return [by_name[name] for name in names]


def _split_by_scene(pairs: list[McrPair]) -> Split:
    scenes = sorted({pair.scene for pair in pairs})
    if len(scenes) == 1:
        column = pairs[0].shape[1] * 3 // 4 // SIZE_MULTIPLE * SIZE_MULTIPLE
        training = [replace(pair, right=column) for pair in pairs]
        validation = [replace(pair, left=column) for pair in pairs]
        return training, validation, f"validation: columns {column} and on of the only scene; training: those before"
    last = set(scenes[-max(1, len(scenes) // 10) :])
    training = [pair for pair in pairs if pair.scene not in last]
    validation = [pair for pair in pairs if pair.scene in last]
    return training, validation, f"validation: the last {len(last)} of {len(scenes)} scenes"


def _cut(pairs: list[McrPair], rows: int, columns: int) -> list[McrPair]:
    return [replace(pair, top=pair.top + rows, left=pair.left + columns) for pair in pairs]
