"""Chooses the set of weights that ``--weights-key`` names, or that fits.

A file may hold several sets: entries (``model`` and ``ema``), or one state dict of a training class whose names
begin with ``model.`` and ``teacher.``. A set is called by the keys that lead to it, joined by dots; the last ones do
where they leave no doubt (``teacher`` for ``state_dict.teacher``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import nn

from hessrank.errors import LoadError, unknown_name
from hessrank.models.match_weights import fits
from hessrank.models.weight_entries import Entry
from hessrank.text import printable

_DEEPEST = 3


def choose_weights(entries: Sequence[Entry], key: str, model: nn.Module | None, *, source: str) -> Entry:
    """Return the set of weights that ``key`` names.

    Args:
        entries: what the file holds.
        key: an entry's name, or the part of the weights' names before a dot; the last words of either.
        model: the network that they are for, to tell whoever errs which ones fit; None where the file holds it.
        source: the file, for error messages.

    Raises:
        UnknownNameError: there is no such set; those that there are are listed, the nearest first.
        LoadError: several are called so.
    """
    groups = [group for entry in entries for group in _group_by_prefix(entry)]
    for known in (entries, groups):
        found = [entry for entry in known if entry.name == key] or [e for e in known if e.name.endswith(f".{key}")]
        if len(found) > 1:
            listed = ", ".join(repr(printable(entry.name)) for entry in found)
            raise LoadError(f"{source}: --weights-key {key}: several are called so: {listed}; give one of these")
        if found:
            return found[0]
    named = [entry.name for entry in entries if entry.name]
    fitting = fitting_groups(entries, model) if model is not None else []
    raise unknown_name(f"set of weights in {source}", key, map(printable, [*named, *fitting]))


def fitting_groups(entries: Iterable[Entry], model: nn.Module, ignored: Sequence[str] = ()) -> list[str]:
    """Return the names of the sets inside ``entries`` that fit ``model``.

    The entries themselves are left out.
    """
    least = len(model.state_dict()) // 2  # of tied weights one name may do
    groups = (group for entry in entries for group in _group_by_prefix(entry))
    return [g.name for g in groups if len(g.state_dict()) >= least and fits(model, g.state_dict(), ignored)]


def _group_by_prefix(entry: Entry) -> list[Entry]:
    """Return the weights under each prefix of their names, as entries of their own."""
    found: dict[str, dict[str, object]] = {}
    for name, value in ({} if isinstance(entry.content, nn.Module) else entry.content).items():
        words = name.split(".")
        for depth in range(1, min(len(words), _DEEPEST + 1)):
            found.setdefault(".".join(words[:depth]), {})[".".join(words[depth:])] = value
    return [Entry(f"{entry.name}.{prefix}".lstrip("."), group) for prefix, group in found.items()]
