"""Lets one process write at a time, and removes what a killed one left.

A lock file beside what is written says who writes, and lists the temporary files that are not finished. The lock
itself is the kernel's, and goes with its process: the file of a killed one is taken over, and what it lists, removed.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import secrets
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from threading import Lock
from typing import Any

from hessrank.errors import OutputError
from hessrank.files.paths import shown_path

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

IN_FOLDER = "hessrank.lock"
_BEGIN = b'{"hessrank": 1, '
_TEMPORARY = re.compile(r"\.hessrank-[0-9a-f]{32}(\.\w{1,16})?")
_SUFFIX = re.compile(r"\.\w{1,16}")
_MOST_BYTES = 1 << 20  # of a lock file
_NO_KERNEL_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}  # of some network file systems
_held: set[Path] = set()  # by this process, which the kernel would let in again
_guard = Lock()


class WriterLock:
    """The right of this process to write to one place.

    Attributes:
        folder: the temporary files of this lock lie in it, or below.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        """Hold the lock file ``path``, open as ``descriptor``."""
        self.folder = path.parent
        self._path, self._descriptor = path, descriptor
        self._pending: set[Path] = set()
        owner = {"hessrank": 1, "process": os.getpid(), "host": socket.gethostname()}  # begins with _BEGIN
        self._owner = json.dumps(owner).encode() + b"\n"
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, self._owner, 0)
        self._end = len(self._owner)

    def covers(self, target: Path) -> bool:
        """Return whether ``target`` lies in the folder of this lock, or below."""
        return target.parent.resolve().is_relative_to(self.folder)

    def make_temporary(self, target: Path) -> Path:
        """Make an empty file of a random name beside ``target``, and list it.

        It is listed before it is there.

        Raises:
            OSError: it cannot be made.
        """
        suffix = target.suffix if _SUFFIX.fullmatch(target.suffix) else ""
        beside = target.parent.resolve() / f".hessrank-{secrets.token_hex(16)}{suffix}"
        line = json.dumps(str(beside.relative_to(self.folder))).encode() + b"\n"
        os.pwrite(self._descriptor, line, self._end)
        os.fsync(self._descriptor)
        self._end += len(line)
        self._pending.add(beside)
        os.close(os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        return beside

    def remove_temporary(self, beside: Path) -> None:
        """Remove a file of :meth:`make_temporary`, and strike it from the list."""
        beside.unlink(missing_ok=True)
        self._pending.discard(beside)
        if not self._pending:
            self._end = len(self._owner)
            os.ftruncate(self._descriptor, self._end)

    def release(self) -> None:
        """Give the lock back and remove its file."""
        self._path.unlink(missing_ok=True)  # before it is closed: nobody else can hold this very file
        _held.discard(self._path)
        os.close(self._descriptor)


_active: ContextVar[WriterLock | None] = ContextVar("hessrank_writer_lock", default=None)


@contextmanager
def one_writer(target: str | Path) -> Iterator[WriterLock]:
    """Hold the lock of ``target`` for the block; remove what a killed process left.

    Args:
        target: a file, beside which ``….lock`` lies, or a folder, in which ``hessrank.lock`` lies.

    Raises:
        OutputError: another process writes there, the lock cannot be made, or a file that is no lock is in its place.
    """
    lock = acquire(Path(target))
    token = _active.set(lock)
    try:
        yield lock
    finally:
        _active.reset(token)
        lock.release()


@contextmanager
def writer_of(target: Path) -> Iterator[WriterLock]:
    """Give the lock of the block around this one, or a new lock of ``target``.

    The lock around is taken if it covers ``target``.
    """
    lock = _active.get()
    if lock is not None and lock.covers(target):
        yield lock
        return
    with one_writer(target) as own:
        yield own


def acquire(target: Path) -> WriterLock:
    """Return the lock of ``target``; otherwise as :func:`one_writer`."""
    try:
        folder = target.is_dir()
        path = target.resolve() / IN_FOLDER if folder else target.parent.resolve() / f"{target.name}.lock"
        with _guard:
            if path in _held:
                raise OutputError(f"{target}: this very process is writing it already")
            _held.add(path)
        try:
            descriptor = _open_locked(path, target)
            try:
                _remove_unfinished(path, _read_content(path, descriptor))
                return WriterLock(path, descriptor)
            except BaseException:
                os.close(descriptor)
                raise
        except BaseException:
            _held.discard(path)
            raise
    except OSError as error:
        raise OutputError(f"{target}: cannot be written: {error.strerror or error}") from error


def _open_locked(path: Path, target: Path) -> int:
    """Return the open lock file once the kernel's lock on it is ours."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OutputError(f"{shown_path(path)}: is no file, and in the place of a lock: remove it")
            _lock(path, descriptor, target)
            if _is_in_place(path, descriptor):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its owner removed it between our two steps


def _lock(path: Path, descriptor: int, target: Path) -> None:
    try:
        if fcntl is not None:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
    except OSError as error:
        if error.errno not in _NO_KERNEL_LOCKS:
            raise _make_busy_error(path, descriptor, target, "wait for it, or stop it") from error
    if os.pread(descriptor, 1, 0) and not _is_gone(_find_owner(_read_content(path, descriptor))):
        raise _make_busy_error(path, descriptor, target, f"wait for it; if it is gone, remove {path}")


def _make_busy_error(path: Path, descriptor: int, target: Path, remedy: str) -> OutputError:
    owner = _find_owner(_read_content(path, descriptor))
    who = f"process {owner['process']} on {owner['host']}" if owner else "another process"
    return OutputError(f"{target}: {who} is writing it: {remedy}, or give another name to write to")


def _is_in_place(path: Path, descriptor: int) -> bool:
    ours = os.fstat(descriptor)
    try:
        there = path.lstat()
    except FileNotFoundError:
        return False
    return (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino)


def _is_gone(owner: dict[str, Any]) -> bool:
    """Return whether the owner ran on this machine and has ended.

    It is asked where the kernel keeps no locks.
    """
    if not owner or owner["host"] != socket.gethostname() or fcntl is None:
        return not owner
    try:
        os.kill(owner["process"], 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def _read_content(path: Path, descriptor: int) -> list[Any]:
    """Return the owner and the unfinished files that a lock file names.

    There are none if its owner has written nothing yet.

    Raises:
        OutputError: it is some other file.
    """
    text = os.pread(descriptor, _MOST_BYTES, 0)
    complete = text[: text.rfind(b"\n") + 1]  # a killed process may have written half a line
    try:
        found = [json.loads(line) for line in complete.splitlines()]
        is_ours = found[0]["hessrank"] == 1 if found else _BEGIN.startswith(text[: len(_BEGIN)])
    except (ValueError, TypeError, KeyError, RecursionError):
        is_ours = False
    if not is_ours:
        raise OutputError(f"{shown_path(path)}: is in the place of a lock, and none of hessrank's: move it away")
    return found


def _find_owner(content: list[Any]) -> dict[str, Any]:
    """Return the owner that a lock file names; empty if the file is damaged."""
    owner = content[0] if content else {}
    good = isinstance(owner.get("process"), int) and isinstance(owner.get("host"), str)
    return owner if good else {}


def _remove_unfinished(path: Path, content: list[Any]) -> None:
    """Remove the temporary files that a lock lists.

    They lie in its folder, have a name that only hessrank gives, and are no links.
    """
    for entry in content[1:]:
        if not isinstance(entry, str) or not _TEMPORARY.fullmatch(Path(entry).name) or "\0" in entry:
            continue
        beside = path.parent / entry
        if beside.parent.resolve().is_relative_to(path.parent) and not beside.is_symlink() and beside.is_file():
            with contextlib.suppress(FileNotFoundError):
                beside.unlink()
