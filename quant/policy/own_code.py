"""Let a policy name the user's own quantizers and observers.

Only code that the user allows by name, never on a file's word.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path

from hessrank.errors import OptionError
from hessrank.plugins import from_here
from hessrank.text import printable


def code_reference(text: str) -> str:
    """Return ``text`` if it names code, as ``file.py:name`` does.

    Or as ``pkg.module:name`` does.

    Raises:
        OptionError: it does not.
    """
    place, _, attribute = text.rpartition(":")
    if not (place and attribute):
        raise OptionError(f"plugin {printable(text)!r}: write pkg.module:name or file.py:name")
    return text


@dataclass(frozen=True)
class Plugins:
    """The code that a user allows a policy to name.

    Attributes:
        names: as he wrote them, ``file.py:name`` found from the current folder.
        everything: whatever is named is the user's own word.
        listed_in: the run or study file whose key ``plugins`` allows more; None for the command line and Python.
        near: folder of the file that is read, to find what it names from the current folder.
    """

    names: tuple[str, ...] = ()
    everything: bool = False
    listed_in: Path | None = None
    near: Path = Path()

    @classmethod
    def of(cls, given: Iterable[str] | Plugins | None) -> Plugins:
        """Return what ``given`` allows; a single name will do.

        Raises:
            OptionError: a name is none of code.
        """
        if isinstance(given, Plugins):
            return given
        return cls(tuple(map(code_reference, (given,) if isinstance(given, str) else given or ())))

    def beside(self, file: str) -> Plugins:
        """Return the same for a file that is read."""
        return replace(self, near=Path(file).parent)

    def and_those_of(self, other: Plugins) -> Plugins:
        """Return what either allows."""
        return replace(self, names=(*self.names, *other.names), everything=self.everything or other.everything)

    def find(self, name: str) -> str | None:
        """Return how the user names what a policy calls ``name``.

        None if he did not name it.

        A policy may come from another folder or machine, so a file's own name and the attribute decide, and among
        several such files the folders around them.
        """
        if name in self.names:
            return name
        place, _, attribute = name.rpartition(":")
        parts = Path(place).parts[::-1]

        def likeness(own: str) -> int:
            theirs = Path(own.rpartition(":")[0]).resolve().parts[::-1]
            return len(list(takewhile(lambda pair: pair[0] == pair[1], zip(parts, theirs, strict=False))))

        alike = [own for own in self.names if own.rpartition(":")[2] == attribute and likeness(own)]
        return max(alike, key=likeness, default=name if self.everything else None)

    def require(self, name: str) -> str:
        """Return ``name`` if it is none of code or the user allows it.

        Raises:
            OptionError: it is code that he did not name; the message says how he does.
        """
        if ":" not in name or self.find(name) is not None:
            return name
        here = printable(from_here(name, self.near))
        if self.listed_in is None:
            remedy = f"--plugin {shlex.quote(here)} (in Python plugins=[{here!r}], of Policy.read or load_trained)"
        else:
            place, _, attribute = here.rpartition(":")
            if Path(place).is_file():  # the list names it from its own folder
                here = f"{os.path.relpath(place, self.listed_in.parent)}:{attribute}"
            remedy = f"plugins: [{here!r}] to {printable(str(self.listed_in))}"
        raise OptionError(f"no code is imported on a file's word: if you trust {printable(name)}, add {remedy}")


NOTHING = Plugins()
"""What a file alone may name: nothing but hessrank's own."""
OWN_WORDS = Plugins(everything=True)
"""For values that the user gives in Python."""
