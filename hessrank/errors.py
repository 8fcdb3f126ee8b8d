"""The errors that hessrank raises on purpose.

An error is one line: what is wrong, where, the nearest right name, the remedy. The command line prints
it and exits with 2; no traceback, unless ``--debug``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class HessrankError(Exception):
    """Base of all errors of hessrank."""


class LoadError(HessrankError):
    """A model file that is unreadable, not trusted, or unfit for its network."""


class DataError(HessrankError):
    """Data that is missing, unreadable, or of a shape the network does not take."""


class LossError(HessrankError):
    """A loss that cannot be evaluated on these outputs, or has no curvature."""


class ModelError(HessrankError):
    """A network that cannot be ranked: NaN values, nothing to differentiate."""


class OutputError(HessrankError):
    """A result that cannot be written or read back."""


class UnknownNameError(HessrankError, LookupError):
    """A name that does not exist; the message lists those that do."""


class OptionError(HessrankError, ValueError):
    """A value that an option or an argument does not take."""


def nearest_first(name: str, known: Iterable[str]) -> list[str]:
    """Return ``known`` sorted by likeness to ``name``; ties keep their order."""
    target = name.lower()

    def likeness(candidate: str) -> float:
        return difflib.SequenceMatcher(None, target, candidate.lower()).ratio()

    return sorted(known, key=likeness, reverse=True)


def unknown_name(what: str, name: str, known: Iterable[str], *, at_most: int = 8) -> UnknownNameError:
    """Build the error for a ``name`` that is none of ``known``.

    ("no loss named 'mes'; nearest is 'mse'")

    Args:
        what: what the name should have named, in the singular ("loss", "estimator", "layer").
        name: the name that was given.
        known: the names there are.
        at_most: how many of them to list.
    """
    ordered = nearest_first(name, known)
    if not ordered:
        return UnknownNameError(f"no {what} named {name!r}; there are none")
    others = ", ".join(ordered[1:at_most])
    rest = f"; others: {others}" if others else ""
    more = f", … ({len(ordered)} in all)" if len(ordered) > at_most else ""
    return UnknownNameError(f"no {what} named {name!r}; nearest is {ordered[0]!r}{rest}{more}")
