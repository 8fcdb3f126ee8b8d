"""Limits how much memory a file may claim beyond its size.

A few bytes can ask for any amount of memory: an archive that is unpacked, an image of a billion pixels, a tensor that
repeats one value, a configuration of a billion layers. What is claimed is compared with the file before it is made.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from hessrank.errors import HessrankError
from hessrank.files.paths import shown_path
from hessrank.text import size_text

MOST_BYTES = 1 << 30
"""What any file may claim, in bytes."""
MOST_TIMES = 16
"""What a file may claim beyond that, in multiples of its size."""
MOST_CONTENTS = 1 << 24
"""How long a file's table of contents may be, in bytes: about 150 000 tensors."""
MOST_MODULES = 100_000
"""How many modules a network may have."""

_LIFTED = "if you trust it, add --trust-size (in Python, with hessrank.trusting_sizes():)"
_END, _END_64, _LOCATOR_64 = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
_LONGEST_END = (1 << 16) + 22 + 20  # a comment, the record of the end, and where that of zip64 is

_trusted: ContextVar[bool] = ContextVar("hessrank_trusted_sizes", default=False)


@contextmanager
def trusting_sizes() -> Iterator[None]:
    """Let files claim as much memory as they like inside the block: they are trusted.

    >>> import hessrank
    >>> with hessrank.trusting_sizes():
    ...     data = hessrank.load_data("random", input_shape=(3, 8, 8))
    """
    token = _trusted.set(True)
    try:
        yield
    finally:
        _trusted.reset(token)


def check_claim(path: Path, claimed: int, what: str, *, error: type[HessrankError], size: int | None = None) -> None:
    """Refuse a file that asks for far more memory than it is large.

    Args:
        path: the file.
        claimed: how many bytes it asks for.
        what: what asks for them, for the message ("its image").
        error: the class of the error to raise.
        size: of the file; of all of them where ``path`` is a folder.

    Raises:
        HessrankError: (as ``error``) more than `MOST_BYTES`, and more than `MOST_TIMES` the file's size.
    """
    if claimed <= MOST_BYTES or _trusted.get():
        return
    held = path.stat().st_size if size is None else size
    if claimed > MOST_TIMES * held:
        claims = f"{what} would take {size_text(claimed)} of memory, but the file has {size_text(held)}"
        raise error(f"{shown_path(path)}: {claims}; {_LIFTED}")


def check_contents(path: Path, length: int, *, error: type[HessrankError]) -> None:
    """Refuse a file whose table of contents takes minutes to read.

    Raises:
        HessrankError: (as ``error``) it has more than `MOST_CONTENTS` bytes.
    """
    if length > MOST_CONTENTS and not _trusted.get():
        raise error(
            f"{shown_path(path)}: its table of contents has {size_text(length)}, which no network needs; {_LIFTED}"
        )


def check_modules(count: int, path: Path | None, *, error: type[HessrankError]) -> None:
    """Refuse a network that is made of more modules than any network has.

    Args:
        count: how many there are so far.
        path: the file that asks for it; None where the user does.
        error: the class of the error to raise.

    Raises:
        HessrankError: (as ``error``) more than `MOST_MODULES`.
    """
    if count > MOST_MODULES and not _trusted.get():
        asked = "" if path is None else f"{shown_path(path)}: "
        raise error(f"{asked}the network has more than {MOST_MODULES} modules; {_LIFTED}")


def check_room(claimed: int, what: str, *, error: type[HessrankError]) -> None:
    """Refuse what does not fit into this machine's free memory.

    It is for what has no file to compare with.

    Raises:
        HessrankError: (as ``error``) more than the memory that is free.
    """
    free = free_memory()
    if claimed > free and not _trusted.get():
        raise error(f"{what} would take {size_text(claimed)} of memory, but {size_text(free)} are free")


def check_archive(path: Path, *, error: type[HessrankError]) -> None:
    """Refuse a zip archive that grows too much when it is unpacked.

    A damaged archive is left to its reader.

    Raises:
        HessrankError: (as ``error``) its members claim too much, or there are too many of them.
    """
    check_contents(path, _read_directory_length(path), error=error)
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError):
        return
    check_claim(path, sum(member.file_size for member in members), "what is packed into it", error=error)
    for member in members:
        if member.filename.rpartition("/")[2] == "data.pkl":
            check_contents(path, member.file_size, error=error)


def free_memory() -> int:
    """Return the bytes of free memory, with the kernel's caches."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        (available,) = (line.split()[1] for line in lines if line.startswith("MemAvailable:"))
        return int(available) << 10
    except (OSError, ValueError):  # another system than Linux: all that there is
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _read_directory_length(path: Path) -> int:
    """Return the length that the archive's directory states; 0 without one."""
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _LONGEST_END))
        tail = file.read()
        end = tail.rfind(_END)
        if end < 0:
            return 0
        length = int.from_bytes(tail[end + 12 : end + 16], "little")
        locator = tail[max(0, end - 20) : end]
        if locator.startswith(_LOCATOR_64):
            file.seek(int.from_bytes(locator[8:16], "little"))
            record = file.read(56)
            if record.startswith(_END_64):
                return int.from_bytes(record[40:48], "little")
        return length
