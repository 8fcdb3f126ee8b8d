"""The Sony part of the SID data set: Chen et al., "Learning to See in the Dark", CVPR 2018.

Every row of a list names a short and a long exposure of one scene. The camera's levels (512 and 16383),
the amplification and the development of the long exposure are those of the benchmark's own code
(https://github.com/cchen156/Learning-to-See-in-the-Dark). No monochrome camera took part: as the
network's authors do, its target is the luma of the color target (``pairs.mono_and_rgb``).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hessrank.data.raw.camera_files import CameraFrame, camera_frames, open_raw
from hessrank.data.raw.exposure import MOST_SID_RATIO, parse_sid
from hessrank.distill.tasks.lowlight.data.pattern import align
from hessrank.errors import DataError, unknown_name
from hessrank.text import one_line, printable

SID_LISTS = {split: f"Sony_{split}_list.txt" for split in ("train", "val", "test")}
"""The lists of pairs, by split."""
SID_LAYOUT = f"{', '.join(SID_LISTS.values())}, Sony/short/*.ARW and Sony/long/*.ARW"
"""What lies in the data set's folder."""
MISALIGNED = ("10034", "10045", "10172")
"""Scenes (all of the test list) whose exposures are shifted against each other; the benchmark leaves them out."""


def is_sid(folder: Path) -> bool:
    """Return whether a folder looks like the SID data set: it has one of the lists, or ``Sony/short``."""
    return (folder / "Sony" / "short").is_dir() or any((folder / name).is_file() for name in SID_LISTS.values())


@dataclass(frozen=True)
class SidPair:
    """One row of a list; a :class:`~hessrank.distill.tasks.lowlight.data.pairs.Pair`.

    Frames of a camera whose cells start elsewhere are cut by one row or column, so that all have one pattern.

    Attributes:
        dark: the short exposure.
        reference: the long one.
        gain: amplification of the short one.
        pattern: color filters that the network should see.
    """

    dark: Path
    reference: Path
    gain: float
    pattern: str

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width that are left once the pattern is in phase."""
        frame, row, column = self._aligned(self.dark)
        return frame.shape[0] - row, frame.shape[1] - column

    def raw(self) -> NDArray[np.float32]:
        """Return ``max(raw − 512, 0) / 15871 · gain``, clipped to 1, 1×H×W."""
        frame, row, column = self._aligned(self.dark)
        return frame.read()[None, row:, column:]

    def target(self) -> NDArray[np.uint16]:
        """Return the developed reference, 3×H×W; for a frame of 12 megapixels it takes seconds."""
        _, row, column = self._aligned(self.reference)
        return develop(self.reference)[:, row:, column:]

    def _aligned(self, path: Path) -> tuple[CameraFrame, int, int]:
        """Open a frame; return it with the rows and columns to cut off."""
        frame = camera_frames([path], gain=self.gain)[0][0]
        offset = align(frame.pattern, self.pattern)
        if offset is None:
            raise DataError(
                f"{path}: its mosaic is {frame.pattern}, not {self.pattern}; set pattern: {frame.pattern}"
            )
        return frame, *offset


def develop(path: Path) -> NDArray[np.uint16]:
    """Return what LibRaw makes of a RAW file: the camera's white balance, no brightening, 16 bits, 3×H×W.

    Args:
        path: the file. The picture is not turned upright: it has to lie as its mosaic does.

    Raises:
        DataError: rawpy is not installed, or the file is damaged.
    """
    with open_raw(path) as raw:
        try:
            rgb = raw.postprocess(
                use_camera_wb=True, no_auto_bright=True, half_size=False, output_bps=16, user_flip=0
            )
        except Exception as error:  # LibRaw's errors derive from Exception alone
            raise DataError(f"{path}: LibRaw cannot develop it: {one_line(error)}") from error
    return np.ascontiguousarray(rgb.transpose(2, 0, 1))


def sid_pairs(
    root: Path, split: str = "train", *, ratio: float = MOST_SID_RATIO, pattern: str = "RGGB"
) -> tuple[list[SidPair], list[str]]:
    """Return the pairs of a list, and what was done with it, a sentence each.

    Args:
        root: folder of the data set.
        split: ``train``, ``val`` or ``test``.
        ratio: the largest amplification; it is the ratio of the two exposures else.
        pattern: color filters that the network should see.

    Raises:
        UnknownNameError: there is no such split.
        DataError: the list or a file of it is missing, or a row is malformed; no pair is left.
    """
    if split not in SID_LISTS:
        raise unknown_name("list of SID", split, SID_LISTS)
    path = root / SID_LISTS[split]
    if not path.is_file():
        raise DataError(f"{path}: there is no such file; a folder of SID holds {SID_LAYOUT}")
    rows = enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1)
    pairs = [_pair(f"{path}:{number}", root, row, ratio, pattern) for number, row in rows if row.strip()]
    kept = [pair for pair in pairs if pair.dark.name.split("_")[0] not in MISALIGNED]
    if not kept:
        raise DataError(f"{path}: it names no pair; a row is './Sony/short/….ARW ./Sony/long/….ARW ISO F'")
    missing = len(pairs) - len(kept)
    note = f"{path.name}: left out {missing} of {len(pairs)} pairs, scenes {', '.join(MISALIGNED)} are misaligned"
    return kept, [note] if missing else []


def _pair(place: str, root: Path, row: str, ratio: float, pattern: str) -> SidPair:
    """Read one row, ``./Sony/short/00001_00_0.04s.ARW ./Sony/long/00001_00_10s.ARW ISO200 F8``."""
    short, long = (root / name for name in (*row.split(), "", "")[:2])
    names = parse_sid(short), parse_sid(long)
    if names[0] is None or names[1] is None:
        shown = printable(row)[:100]
        raise DataError(
            f"{place}: {shown!r} is no row './Sony/short/00001_00_0.1s.ARW ./Sony/long/00001_00_10s.ARW …'"
        )
    for file in (short, long):
        if not file.is_file():
            raise DataError(f"{place}: there is no file {file}; is the data set complete?")
    return SidPair(short, long, min(names[1][1] / names[0][1], ratio), pattern)
