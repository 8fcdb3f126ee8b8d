"""Finds the weights in a checkpoint: bare, or under 'model', 'ema' and so on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from hessrank.text import DOTS, listed, printable

USUAL_NAMES = (
    "model",
    "state_dict",
    "model_state_dict",
    "model_state",
    "net",
    "network",
    "params",
    "weights",
    "module",
    "generator",
    "student",
    "ema",
    "model_ema",
    "state_dict_ema",
    "ema_state_dict",
    "params_ema",
)
_ORDER = {name: place for place, name in enumerate(USUAL_NAMES)}
_DEEPEST = 3


@dataclass(frozen=True)
class Entry:
    """A state dict or a module inside a checkpoint.

    Attributes:
        name: the keys that lead to it, joined by dots; empty when the file holds nothing around it.
        content: the state dict or the module.
    """

    name: str
    content: Mapping[str, Any] | nn.Module

    def state_dict(self) -> dict[str, Any]:
        """Return the weights by name."""
        if isinstance(self.content, nn.Module):
            return dict(self.content.state_dict())
        return dict(self.content)


def find_entries(held: object) -> list[Entry]:
    """Return every state dict and module in ``held``, usual names first."""
    return list(_walk(held, "", 0, set()))


def _walk(held: object, name: str, depth: int, seen: set[int]) -> Iterator[Entry]:
    if id(held) in seen:  # containers may hold each other, in a circle or a thousand times
        return
    seen.add(id(held))
    if isinstance(held, nn.Module) or _is_state_dict(held):
        yield Entry(name, held)  # type: ignore[arg-type]  # a module, or a mapping by _is_state_dict
    elif isinstance(held, Mapping) and depth < _DEEPEST and all(isinstance(key, str) for key in held):
        for key in sorted(held, key=lambda key: _ORDER.get(key, len(_ORDER))):
            yield from _walk(held[key], f"{name}.{key}".lstrip("."), depth + 1, seen)


def _is_state_dict(held: object) -> bool:
    """Return whether it maps names to tensors.

    A few plain values among them (``_extra_state``) do no harm.
    """
    if not isinstance(held, Mapping) or not all(isinstance(key, str) for key in held):
        return False
    values = held.values()
    holds_more = any(isinstance(value, Mapping | nn.Module) for value in values)
    return any(isinstance(value, Tensor) for value in values) and not holds_more


def needs_arch(entry: Entry) -> str:
    """Return the phrase that asks for the network's code, with a few keys."""
    names = [printable(name) for name in entry.state_dict()]
    return (
        f"this holds weights only ({len(names)} keys: {listed(names, 4, DOTS)}); name the code that builds the "
        "network, --arch pkg.module:factory or --arch file.py:factory, and its --arch-args '{\"width\": 64}' if any"
    )


def taken_note(entry: Entry, entries: Iterable[Entry]) -> tuple[str, ...]:
    """Return the note on which of ``entries`` was taken.

    There is none where the file is the entry.
    """
    if not entry.name:
        return ()
    others = [repr(printable(other.name)) for other in entries if other is not entry]
    also = f" (the file also holds {', '.join(others)}; --weights-key chooses)" if others else ""
    return (f"took the entry {printable(entry.name)!r}{also}",)


def describe_held(held: object) -> str:
    """Return what a file holds where it holds no weights, as the end of a sentence."""
    if isinstance(held, Mapping):
        keys = listed((printable(repr(key)) for key in held), 6, DOTS)
        return f"a dict of {keys}" if held else "an empty dict"
    if isinstance(held, Tensor):
        return "a tensor; give data as --data"
    return f"an object of type {type(held).__name__}"
