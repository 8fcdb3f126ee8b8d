"""What is wrong with a policy, and in which line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from hessrank.errors import HessrankError


class PolicyError(HessrankError):
    """A policy that cannot be read, contradicts itself, or does not fit the network.

    Attributes:
        file: the file, as it was named; empty for a policy made in memory.
        line: 1-based; None where no line is to blame.
        column: 1-based; None where no line is to blame.
        problem: the message without the place.
    """

    def __init__(self, problem: str, file: str = "", line: int | None = None, column: int | None = None) -> None:
        """Put the place in front: ``policy.yaml:11:5: no layer named 'encoder.con1'``."""
        place = [str(part) for part in (file, line, column) if part not in ("", None)]
        super().__init__(f"{':'.join(place)}: {problem}" if place else problem)
        self.problem, self.file, self.line, self.column = problem, file, line, column


class MisfitError(ValueError):
    """A value that does not fit.

    Raised inside validation, where nothing is known of lines.

    Attributes:
        path: from the place of validation to what is to blame.
        at_key: the key is to blame, not its value.
    """

    def __init__(self, problem: str, *path: str | int, at_key: bool = False) -> None:
        super().__init__(problem)
        self.path, self.at_key = path, at_key


def no_such(what: str, name: str, known: Iterable[str]) -> str:
    """Return ``no layer named 'encoder.con1'; nearest is 'encoder.conv1'``.

    The rest of the names is not listed, as ``hessrank.errors.unknown_name`` does: a check has many such lines.
    """
    names = list(known)
    initials = {other: "".join(word[0] for word in other.split("_") if word) for other in names}
    near = [other for other in names if len(name) > 1 and initials[other] == name]  # lr, bs, wd
    near = near or difflib.get_close_matches(name, names, n=1, cutoff=0)
    return (
        f"no {what} named {name!r}; nearest is {near[0]!r}" if near else f"no {what} named {name!r}; there are none"
    )
