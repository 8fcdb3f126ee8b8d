"""Finds the files of a folder that are samples, and their kind."""

from __future__ import annotations

from pathlib import Path

from hessrank.errors import DataError
from hessrank.files.paths import readable_file

IMAGES = "images"
MCR = "MCR RAW files"
CAMERA = "camera RAW files"

SUFFIXES: dict[str, tuple[str, ...]] = {
    IMAGES: (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif"),
    MCR: (".raw",),
    CAMERA: (".arw", ".dng", ".nef", ".cr2", ".cr3", ".orf", ".rw2", ".raf", ".pef", ".srw"),
}


def kind_of(path: Path) -> str | None:
    """Return the kind of sample that a file is by its suffix; None for none."""
    return next((kind for kind, suffixes in SUFFIXES.items() if path.suffix.lower() in suffixes), None)


def files_of(folder: Path) -> tuple[str, list[Path]]:
    """Return the kind and the files of the samples in a folder, sorted by name.

    Sub-folders are not read.

    Raises:
        DataError: the folder cannot be listed, holds no sample, samples of several kinds, or what is called like a
            sample and cannot be read: a link to nothing, a pipe.
    """
    try:
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise DataError(f"{folder}: the folder cannot be listed: {error.strerror}") from error
    by_kind: dict[str, list[Path]] = {}
    for entry in entries:
        if not entry.is_dir() and (kind := kind_of(entry)):
            readable_file(entry, error=DataError)
            by_kind.setdefault(kind, []).append(entry)
    if not by_kind:
        raise DataError(f"{folder}: {_why_empty(entries)}")
    if len(by_kind) > 1:
        counts = " and ".join(f"{len(files)} {kind}" for kind, files in by_kind.items())
        raise DataError(f"{folder}: the folder holds {counts}; put each kind into a folder of its own")
    return next(iter(by_kind.items()))


def _why_empty(entries: list[Path]) -> str:
    if not entries:
        return "the folder is empty"
    if any(entry.is_dir() for entry in entries):
        return "no image and no RAW file in this folder, and its sub-folders are not read; give one of them"
    known = " ".join(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)
    return f"no image and no RAW file in this folder ({known})"
