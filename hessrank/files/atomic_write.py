"""Writes files whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hessrank.errors import OutputError
from hessrank.files.one_writer import writer_of
from hessrank.files.paths import shown_path

DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Numbers of the errors that say so: of the disk, of a user's share of it, of a file."""


@contextmanager
def written_whole(path: str | Path) -> Iterator[Path]:
    """Give a path to write to, and rename it to ``path`` at the end.

    The file is flushed first, and removed if anything went wrong.

    A file that is there keeps its mode. A link is replaced; what it points to stays as it is.

    Raises:
        OutputError: the folder does not exist or cannot be written to, the disk is full, or another process writes
            to the same place.
    """
    path = Path(path)
    check_writable(path)
    try:
        with writer_of(path) as lock:
            beside = lock.make_temporary(path)
            try:
                yield beside
                _put_in_place(beside, path)
            finally:
                lock.remove_temporary(beside)
    except OSError as error:
        raise OutputError(f"{shown_path(path)}: cannot be written: {error.strerror or error}") from error


def _put_in_place(beside: Path, path: Path) -> None:
    """Rename a file so that a loss of power leaves the old or the new one whole."""
    with contextlib.suppress(FileNotFoundError):
        before = path.lstat()
        if stat.S_ISREG(before.st_mode):
            beside.chmod(stat.S_IMODE(before.st_mode))
    _flush(beside)
    beside.replace(path)
    with contextlib.suppress(OSError):  # some file systems do not flush folders
        _flush(path.parent)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_writable(path: str | Path) -> None:
    """Refuse a path that could not be written to, before any work is done.

    Raises:
        OutputError: saying what is in the way.
    """
    path = Path(path)
    if "\0" in str(path):
        raise OutputError(f"{str(path)!r}: cannot be written: no file's name holds a NUL")
    try:
        _check_writable(path)
    except OSError as error:
        raise OutputError(f"{shown_path(path)}: cannot be written: {error.strerror or error}") from error


def _check_writable(path: Path) -> None:
    if path.is_dir():
        raise OutputError(f"{shown_path(path)}: is a folder: give a file name")
    if path.exists() and not path.is_file():
        raise OutputError(f"{shown_path(path)}: is a device or a pipe, not a file: give a file name")
    if not path.parent.is_dir():
        raise OutputError(
            f"{shown_path(path)}: cannot be written: there is no folder {str(path.parent)!r}; make it first"
        )
    if not os.access(path.parent, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise OutputError(f"{shown_path(path)}: cannot be written: no permission")
