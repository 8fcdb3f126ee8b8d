"""Removes prefixes of wrappers (``module.``, ``_orig_mod.``) where that helps."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TypeVar

T = TypeVar("T")

WRAPPERS = ("module.", "_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
"""What torch's own wrappers add, before the name or inside it."""
OUTER = ("model.", "net.", "network.")
"""What a training class adds before the name."""
_COUNTER = "n_averaged"
_DEEPEST = 3


def strip_prefixes(state: Mapping[str, T], wanted: Collection[str]) -> tuple[dict[str, T], tuple[str, ...]]:
    """Return ``state`` under the names ``wanted`` uses, and notes on what was removed.

    Up to three prefixes are removed, each from every key that has it, if more keys match afterwards; the
    fewest removals that match the most keys are taken. Two keys never become one. What ``AveragedModel`` counts its
    averages in goes with its prefix.

    Args:
        state: values by name.
        wanted: the names of the network's own state dict.
    """
    best: tuple[dict[str, T], tuple[str, ...]] = (dict(state), ())
    most = _count_matches(state, wanted)
    level = [best]
    for _ in range(_DEEPEST):
        if most == len(state):
            break
        level = [shorter for names, notes in level for shorter in _remove_each_prefix(names, notes)]
        for names, notes in level:
            if (matches := _count_matches(names, wanted)) > most:
                best, most = (names, notes), matches
    names, notes = best
    if _COUNTER in names and _COUNTER not in wanted and any(WRAPPERS[0] in note for note in notes):
        return {n: v for n, v in names.items() if n != _COUNTER}, (*notes, f"left out AveragedModel's {_COUNTER}")
    return best


def _remove_each_prefix(
    names: dict[str, T], notes: tuple[str, ...]
) -> Iterator[tuple[dict[str, T], tuple[str, ...]]]:
    """Yield ``names`` less each prefix that some of them have."""
    for prefix in WRAPPERS + OUTER:
        inside = prefix in WRAPPERS  # these may stand around a part of a network too
        shorter = {
            name.removeprefix(prefix).replace(f".{prefix}", ".") if inside else name.removeprefix(prefix): value
            for name, value in names.items()
        }
        changed = len(names.keys() - shorter.keys())
        if changed and len(shorter) == len(names):
            yield shorter, (*notes, f"removed {prefix!r} from {changed} key{'s' if changed > 1 else ''}")


def _count_matches(names: Mapping[str, T], wanted: Collection[str]) -> int:
    return sum(name in wanted for name in names)
