"""Files as the user named them: that they are there and can be read."""

from __future__ import annotations

import difflib
import hashlib
import os
from pathlib import Path

from hessrank.errors import HessrankError
from hessrank.text import one_line


def existing_path(path: str | os.PathLike[str], *, error: type[HessrankError]) -> Path:
    """Return ``path`` with ``~`` expanded, once it is known to exist.

    Args:
        path: a file or a folder.
        error: the class of the error to raise.

    Raises:
        HessrankError: (as ``error``) nothing is there; the message names the nearest file of that folder.
    """
    try:
        found = Path(path).expanduser()
        if found.exists():
            return found
        siblings = [entry.name for entry in found.parent.iterdir()] if found.parent.is_dir() else None
    except (OSError, RuntimeError) as problem:  # RuntimeError: there is no such user as ~name
        raise error(f"{path}: cannot be looked up: {one_line(problem)}") from problem
    if siblings is None:
        raise error(f"{path}: there is no folder {str(found.parent)!r}")
    near = difflib.get_close_matches(found.name, siblings, n=1)
    hint = f"; nearest is {str(found.with_name(near[0]))!r}" if near else ""
    raise error(f"{path}: there is no such file{hint}")


def readable_file(path: str | os.PathLike[str], *, error: type[HessrankError]) -> Path:
    """Return ``path`` with ``~`` expanded, once it is known to be a regular file that opens for reading.

    Args:
        path: the file.
        error: the class of the error to raise.

    Raises:
        HessrankError: (as ``error``) the path is missing, a folder, no regular file, or may not be read.
    """
    found = existing_path(path, error=error)
    if found.is_dir():
        raise error(f"{path}: this is a folder; give a file in it")
    if not found.is_file():
        raise error(f"{path}: this is not a regular file")
    try:
        with found.open("rb"):
            return found
    except OSError as problem:
        raise error(f"{path}: cannot be opened for reading: {problem.strerror}") from problem


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of the file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
