"""Writing files whole or not at all."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hessrank.errors import OutputError

_BESIDE = re.compile(r"\..+\.\d+(\.\w+)?")  # what ``written_whole`` writes to


@contextmanager
def written_whole(path: str | Path) -> Iterator[Path]:
    """Give a path beside ``path`` to write to; rename it at the end, remove it if anything went wrong.

    Raises:
        OutputError: the folder does not exist or cannot be written to, or the disk is full.
    """
    path = Path(path)
    beside = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        check_writable(path)
        yield beside
        beside.replace(path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        beside.unlink(missing_ok=True)


def check_writable(path: str | Path) -> None:
    """Refuse a path that could not be written to, before any work is done.

    Raises:
        OutputError: saying what is in the way.
    """
    path = Path(path)
    if path.is_dir():
        raise OutputError(f"{path}: is a folder: give a file name")
    if path.exists() and not path.is_file():
        raise OutputError(f"{path}: is a device or a pipe, not a file: give a file name")
    if not path.parent.is_dir():
        raise OutputError(f"{path}: cannot be written: there is no folder {str(path.parent)!r}; make it first")
    if not os.access(path.parent, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise OutputError(f"{path}: cannot be written: no permission")


def remove_leftovers(folder: str | Path, of: Path | None = None) -> None:
    """Remove what :func:`written_whole` left in a folder, and below, when its process was killed in the middle.

    Args:
        folder: that nobody else writes to now.
        of: only what was to become this file, in this folder; what others write stays.
    """
    beside = _BESIDE if of is None else re.compile(rf"\.{re.escape(of.stem)}\.\d+{re.escape(of.suffix)}")
    for path in Path(folder).rglob(".*") if of is None else Path(folder).glob(".*"):
        if path.is_file() and beside.fullmatch(path.name):
            path.unlink(missing_ok=True)
