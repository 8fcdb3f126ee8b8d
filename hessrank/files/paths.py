"""Checks that the paths a user gives exist and can be read."""

from __future__ import annotations

import difflib
import hashlib
import os
import stat
from pathlib import Path

from hessrank.errors import HessrankError
from hessrank.text import one_line, printable


def existing_path(path: str | os.PathLike[str], *, error: type[HessrankError]) -> Path:
    """Return ``path`` with ``~`` expanded, if something is there.

    Args:
        path: a file or a folder.
        error: the class of the error to raise.

    Raises:
        HessrankError: (as ``error``) nothing is there; the message names the nearest file of that folder.
    """
    shown = shown_path(path)
    if not os.fspath(path):
        raise error("a path is empty: give the name of a file or folder")
    try:
        found = Path(path).expanduser()
        found.stat()  # unlike exists(), it says why not
        return found
    except FileNotFoundError:
        pass
    except (OSError, RuntimeError, ValueError) as problem:  # no such user as ~name; a name that no file can have
        raise error(f"{shown}: cannot be looked up: {_explain_problem(problem)}") from problem
    if found.is_symlink():
        raise error(f"{shown}: this is a link to what is not there, {shown_path(found.readlink())}")
    if not found.parent.is_dir():
        raise error(f"{shown}: there is no folder {printable(str(found.parent))!r}")
    raise error(f"{shown}: there is no such file{_suggest_nearest(found)}")


def readable_file(path: str | os.PathLike[str], *, error: type[HessrankError]) -> Path:
    """Return ``path`` with ``~`` expanded, if it is a regular, readable file.

    Args:
        path: the file.
        error: the class of the error to raise.

    Raises:
        HessrankError: (as ``error``) the path is missing, a folder, no regular file, or may not be read.
    """
    found, shown = existing_path(path, error=error), shown_path(path)
    if found.is_dir():
        raise error(f"{shown}: this is a folder; give a file in it")
    try:
        opened = os.open(found, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # a pipe without a writer waits else
        try:
            regular = stat.S_ISREG(os.fstat(opened).st_mode)
            if regular:
                os.read(opened, 1)  # some of /proc opens and cannot be read
        finally:
            os.close(opened)
    except OSError as problem:
        raise error(f"{shown}: cannot be opened for reading: {problem.strerror}") from problem
    if not regular:
        raise error(f"{shown}: this is not a regular file")
    return found


def bounded_bytes(path: Path, most: int, what: str, *, error: type[HessrankError]) -> bytes:
    """Return the bytes of a file that is no larger than ``most``.

    Args:
        path: the file.
        most: how many bytes it can have.
        what: what it should be, for the message ("a ranking").
        error: the class of the error to raise.

    Raises:
        HessrankError: (as ``error``) as :func:`readable_file`, or it is larger.
    """
    readable_file(path, error=error)
    try:
        if path.stat().st_size > most:
            raise error(f"{shown_path(path)}: larger than {most // 2**20} MiB: not {what}")
        return path.read_bytes()
    except OSError as problem:
        raise error(f"{shown_path(path)}: cannot be read: {_explain_problem(problem)}") from problem


def resolved(path: str | os.PathLike[str]) -> Path:
    """Return the absolute path without links; the path itself if there is none.

    A circle of links has none.
    """
    try:
        return Path(path).resolve()
    except (OSError, RuntimeError, ValueError):
        return Path(path)


def record_of(table: Path) -> Path:
    """Return the path of a table's record.

    Of a path without a name, ``.``, it is a path where nothing is.
    """
    return table.parent / f"{table.stem}.json"


def shown_path(path: str | os.PathLike[str]) -> str:
    """Return a path as one line of printable text, also where its name is no UTF-8, or nothing but spaces."""
    return printable(os.fspath(path)) or repr(os.fspath(path))


def _suggest_nearest(missing: Path) -> str:
    try:
        siblings = [entry.name for entry in missing.parent.iterdir()]
    except OSError:
        return ""
    near = difflib.get_close_matches(missing.name, siblings, n=1)
    return f"; nearest is {shown_path(missing.with_name(near[0]))!r}" if near else ""


def _explain_problem(problem: BaseException) -> str:
    return getattr(problem, "strerror", None) or one_line(problem)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of the file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
