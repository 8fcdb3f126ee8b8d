"""Saves an unfinished ranking to a file, from which it can be resumed.

A resumed ranking gives the same bytes as one that was not interrupted.
"""

from __future__ import annotations

import json
import time
import zipfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hessrank.distributed import Team
from hessrank.errors import OptionError, OutputError
from hessrank.files.atomic_write import check_writable, written_whole
from hessrank.files.one_writer import one_writer
from hessrank.files.size_limits import check_archive
from hessrank.validation import RecordPart, validate

FORMAT = 1
_FACTS = "facts"
_SECONDS_BETWEEN_SAVES = 10.0


class _Facts(RecordPart):
    """The JSON values that are stored beside the arrays."""

    key: dict[str, Any]
    sections: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Section:
    """The state of one stage of a ranking.

    Attributes:
        arrays: numbers.
        facts: whatever JSON can hold.
    """

    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


class Checkpoint:
    """A file with the state of an unfinished ranking.

    ::

        with Checkpoint("ranking.csv.partial", resume=True) as checkpoint:
            rank(model, data, checkpoint=checkpoint).to_csv("ranking.csv")

    The file is written whole, every few seconds, and removed when the block ends well. Inside the block no other
    process may write to it.
    """

    def __init__(self, path: str | Path, *, resume: bool = False, seconds: float = _SECONDS_BETWEEN_SAVES) -> None:
        """Write nothing yet.

        Args:
            path: the file.
            resume: go on from it if it is there.
            seconds: between two writes, at least.

        Attributes:
            saved: whether the file holds something of this ranking.
        """
        self.path, self.resume, self._seconds = Path(path), resume, seconds
        self.saved = False
        self._sections: dict[str, Section] = {}
        self._key: Mapping[str, Any] = {}
        self._team = Team()
        self._last = time.monotonic()
        self._lock: ExitStack | None = None  # inside the block
        self._is_claimed = False

    def __enter__(self) -> Checkpoint:
        self._lock = ExitStack()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if kind is None and self._team.is_first:
            self.path.unlink(missing_ok=True)
            self.saved = False
        if self._lock is not None:
            self._lock.close()
        self._lock, self._is_claimed = None, False

    def claim(self) -> None:
        """Check that the file can be written, and lock it against other processes.

        Refuse a file that is there already, unless the ranking is resumed.

        Raises:
            OutputError: it cannot be written, or another process is at work on it.
            OptionError: an interrupted ranking is there, and ``resume`` was not asked for.
        """
        check_writable(self.path)
        if self._lock is not None and not self._is_claimed:
            self._lock.enter_context(one_writer(self.path))
            self._is_claimed = True
        if self.path.exists() and not self.resume:
            raise OptionError(
                f"{self.path}: an interrupted ranking is here: go on with it (--resume), or remove the file"
            )

    def open(self, key: Mapping[str, Any], team: Team) -> None:
        """Begin a ranking, or resume it.

        Args:
            key: all that must be the same for the numbers to be those of the same ranking, as JSON has it.
            team: the processes at work; the first one reads and writes, and sends the others what it read.

        Raises:
            OutputError: the file cannot be read or written.
            OptionError: it is another ranking's, or ``resume`` was not asked for.
        """
        self._key, self._team = json.loads(json.dumps(dict(key))), team
        with team.raise_together():
            if team.is_first:
                self.claim()
                if self.path.exists():
                    self._read()
        self._sections = team.broadcast(self._sections)

    def no_ranking(self) -> OutputError:
        """Return the error that the file is not the checkpoint of a ranking."""
        return OutputError(f"{self.path}: holds no interrupted ranking: remove it")

    def section(self, name: str) -> Section | None:
        """Return the saved state of the stage ``name``; None if it had not begun."""
        return self._sections.get(name)

    def keep(self, name: str, section: Section) -> None:
        """Keep a stage's state, and write all of them if it is time.

        The arrays may be those at work: they are written now or not at all.
        """
        self._sections[name] = section
        if self._team.is_first and time.monotonic() - self._last >= self._seconds:
            self._write()
            self._last = time.monotonic()

    def _write(self) -> None:
        facts = {
            "format": FORMAT,
            "key": self._key,
            "sections": {name: dict(section.facts) for name, section in self._sections.items()},
        }
        arrays = {f"{n}/{key}": a for n, section in self._sections.items() for key, a in section.arrays.items()}
        with written_whole(self.path) as beside, beside.open("wb") as file:
            np.savez(file, **{_FACTS: np.array(json.dumps(facts))}, **arrays)  # type: ignore[arg-type]
        self.saved = True

    def _read(self) -> None:
        try:
            check_archive(self.path, error=OutputError)
            with np.load(self.path, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
            facts = json.loads(str(arrays.pop(_FACTS)))
            known = facts["format"] == FORMAT
            if known:
                validate(_Facts, facts, source=str(self.path), error=OutputError)
        except (
            OutputError,
            OSError,
            ValueError,
            KeyError,
            TypeError,
            EOFError,
            zipfile.BadZipFile,
            RecursionError,
        ) as error:
            raise self.no_ranking() from error
        if not known:
            raise OutputError(f"{self.path}: was written by another version of hessrank: remove it")
        if facts["key"] != self._key:
            raise OptionError(
                f"{self.path}: is of another ranking ({find_difference(facts['key'], self._key)}): "
                "give what it was begun with, or remove the file"
            )
        for name, kept in facts["sections"].items():
            own = {key.removeprefix(f"{name}/"): a for key, a in arrays.items() if key.startswith(f"{name}/")}
            self._sections[name] = Section(own, kept)
        self.saved = True


def find_difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return the first difference, in the order of ``now``, in a few words."""
    for name in now:
        if before.get(name) != now[name]:
            then, since = (str(value) for value in (before.get(name), now[name]))
            long = max(len(then), len(since)) > 40  # a checksum says nothing to a reader
            return f"another {name}" if long else f"{name} was {then}, is {since}"
    return "it was begun by another version"
