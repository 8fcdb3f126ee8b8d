"""A folder of pictures sorted by class: ``ROOT/train/CLASS/*.png`` and ``ROOT/val/CLASS/*.png``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from hessrank.data.images import ImageSamples
from hessrank.data.pixels import image_shape
from hessrank.data.sample_folder import IMAGES, SUFFIXES, files_of
from hessrank.distill.tasks.classification.pictures import ClassifiedPictures, LabeledPictures
from hessrank.errors import DataError, OptionError, nearest_first
from hessrank.text import DOTS, listed, shape_text

VALIDATION_FOLDERS = ("val", "validation", "test")
"""Names of the folder of held-out pictures; the first that is there is read."""

Files = Mapping[str, list[Path]]
"""The pictures of each class, both sorted by name."""


def load_image_folder(root: Path, *, size: int | None = None, channels: int | None = None) -> ClassifiedPictures:
    """Return the pictures of a folder, scaled until they just cover ``size`` × ``size`` and center-cropped.

    Classes are the sub-folders of ``ROOT/train``, sorted by name. Pictures are decoded when they are asked for,
    but each one's header is read now.

    Args:
        root: the folder, with ``train`` and one of :data:`VALIDATION_FOLDERS`.
        size: height and width of a sample; None if all pictures have one size, which is then kept.
        channels: 1 (gray) or 3 (RGB); None for RGB as soon as one picture has color.

    Raises:
        DataError: the folder is missing or not laid out so, a class is empty, validation has one that training
            lacks, or a picture cannot be read; without ``size``, the pictures differ in size.
        OptionError: there are no pictures of that ``size`` or with so many ``channels``.
    """
    if channels not in (None, 1, 3):
        raise OptionError(f"channels: {channels}; pictures have 1 (gray) or 3 (RGB)")
    if size is not None and not (isinstance(size, int) and size > 0):
        raise OptionError(f"size: {size}; give the side of a picture in pixels")
    training, validation = _files_by_class(root)
    classes = tuple(training)
    pictures = [path for files in (training, validation) for paths in files.values() for path in paths]
    shape = _common_shape(pictures, size, channels)
    return ClassifiedPictures(
        classes=classes,
        shape=shape,
        training=_labeled(training, classes, shape),
        validation=_labeled(validation, classes, shape),
        notes=_notes(training, validation, shape),
    )


def _files_by_class(root: Path) -> tuple[Files, Files]:
    """Return the pictures to learn from and those held out."""
    if not root.is_dir():
        raise _bad_layout(root, "this is a file" if root.exists() else "there is no such folder")
    held_out = next((root / name for name in VALIDATION_FOLDERS if (root / name).is_dir()), None)
    if not (root / "train").is_dir():
        raise _bad_layout(root, "there is no folder 'train' in it")
    if held_out is None:
        raise _bad_layout(root, f"there is none of the folders {', '.join(map(repr, VALIDATION_FOLDERS))} in it")
    training, validation = _classes_in(root / "train", root), _classes_in(held_out, root)
    for name in validation:
        if name not in training:
            nearest = nearest_first(name, training)[0]
            raise DataError(f"{held_out / name}: {root / 'train'} has no class {name!r}; nearest is {nearest!r}")
    if len(training) < 2:
        raise _bad_layout(root, f"{root / 'train'} holds one class only, {next(iter(training))!r}")
    return training, validation


def _classes_in(folder: Path, root: Path) -> Files:
    try:
        names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise DataError(f"{folder}: the folder cannot be listed: {error.strerror}") from error
    if not names:
        raise _bad_layout(root, f"there are no folders in {folder}")
    return {name: _images_in(folder / name) for name in names}


def _images_in(folder: Path) -> list[Path]:
    """Return the pictures of one class."""
    try:
        kind, paths = files_of(folder)
    except DataError as error:
        raise DataError(f"{error}; put pictures of this class into it, or remove it") from error
    if kind != IMAGES:
        raise DataError(f"{folder}: a class is a folder of images ({' '.join(SUFFIXES[IMAGES])}), these are {kind}")
    return paths


def _common_shape(paths: Sequence[Path], size: int | None, channels: int | None) -> tuple[int, int, int]:
    """Return channels, height and width of a sample."""
    if size is not None and channels is not None:
        return channels, size, size
    shapes = {path: image_shape(path) for path in paths}
    channels = channels or max(shape[0] for shape in shapes.values())
    if size is not None:
        return channels, size, size
    first, (_, height, width) = next(iter(shapes.items()))
    for path, shape in shapes.items():
        if shape[1:] != (height, width):
            raise DataError(
                f"the pictures differ in size: {first} is {height}×{width} and {path} is {shape_text(shape[1:])}; "
                "give the size to scale and crop them to, task_args: {size: 224}"
            )
    return channels, height, width


def _labeled(files: Files, classes: Sequence[str], shape: tuple[int, int, int]) -> LabeledPictures:
    paths = [path for paths in files.values() for path in paths]
    labels = [classes.index(name) for name, paths in files.items() for _ in paths]
    return LabeledPictures(ImageSamples(paths, shape), torch.tensor(labels))


def _notes(training: Files, validation: Files, shape: tuple[int, int, int]) -> tuple[str, ...]:
    counts = [sum(map(len, files.values())) for files in (training, validation)]
    found = (
        f"{len(training)} classes ({listed(training, 10, DOTS)}): "
        f"{counts[0]} pictures to learn from, {counts[1]} held out, as {shape_text(shape)}"
    )
    missing = [name for name in training if name not in validation]
    return (found, f"no picture is held out of {', '.join(missing)}") if missing else (found,)


def _bad_layout(root: Path, problem: str) -> DataError:
    return DataError(f"{root}: {problem}; lay pictures out as {root}/train/CLASS/*.png and {root}/val/CLASS/*.png")
