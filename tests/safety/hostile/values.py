"""Values that nobody expects, and how a tree of values is spoiled with them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from random import Random
from typing import Any

_DEEP: list[Any] = []
for _ in range(100):  # text nested deeper is among the mutators of text
    _DEEP = [_DEEP]

NUMBERS: tuple[Any, ...] = (
    0, 1, -1, 2, 3, 17, 2**63, 2**64, 10**400, 0.5, -0.5, -0.0, 1e-320, 1e308, -1e308,
    float("nan"), float("inf"), -float("inf"),
)  # fmt: skip
TEXTS = (
    "", " ", ".", "..", "~nobody/x", "a/../..", "missing", "missing/x.csv", "occupied", "x" * 300, "x" * 5000,
    "a\0b", "\x1b[31mred\x1b[0m", "\u0007\r\n\t", "[/bold]", "[link=x]", "${HOME}", "$x$", "$\\frac{", "%s%n",
    "{0}", "=1+1", "\ufeff", "\u00e9\u0301\u202e", "😀", "nan", "inf", "-1", "1e999", "NaN", "None", "true",
    "0x10", "1_000", "1,2", "４", "b4", "'", "\"", "\\", "#", "&a", "*a", "!!python/object:os.system", "class",
    "in", "self", "x.y", "x..y", ".x", "trace", "act_increase_b4", "act_increase_b99", "budget", "uniform",
    "nets.py", "nets.py:", "nets.py:none", "no.py:none", "json:loads", "builtins:exit", ":", "evil.py:f",
)  # fmt: skip
OTHERS: tuple[Any, ...] = (None, True, False, [], {}, [[]], [None], {"": ""}, {"a": 1}, [1, "x"], _DEEP)
PLAIN = (*NUMBERS, *TEXTS, *OTHERS)


def any_value(random: Random) -> Any:
    """Return a hostile value: a number, a text, or something else, each as often."""
    return random.choice(random.choice((NUMBERS, TEXTS, OTHERS)))


def spoiled(tree: Any, random: Random, value: Callable[[Random, Any], Any] | None = None) -> Any:
    """Return a copy of dicts and lists with one to three changes.

    Args:
        tree: dicts, lists and what is in them.
        random: what decides.
        value: gives what takes the place of a value; any hostile one by default.
    """
    tree = copy.deepcopy(tree)
    new = value or (lambda chance, old: any_value(chance))
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        places = list(_places(tree))
        if not places:
            return new(random, tree)
        _spoil(*random.choice(places), random, new)
    return tree


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """Return every container with every key in it."""
    if isinstance(tree, dict):
        inside = list(tree.items())
    elif isinstance(tree, list):
        inside = list(enumerate(tree))
    else:
        return []
    return [*((tree, key) for key, _ in inside), *(place for _, child in inside for place in _places(child))]


def _spoil(inside: Any, key: Any, random: Random, new: Callable[[Random, Any], Any]) -> None:
    change = random.choice(("value",) * 5 + ("lose", "add", "rename", "move"))
    if change == "value":
        inside[key] = new(random, inside[key])
    elif change == "lose":
        del inside[key]
    elif isinstance(inside, list):
        if change == "add":
            inside.insert(key, copy.deepcopy(inside[key]))
        else:
            random.shuffle(inside)
    elif change == "add":
        inside[random.choice(TEXTS)] = new(random, inside[key])
    elif change == "rename":
        inside[random.choice(TEXTS)] = inside.pop(key)
    else:
        other = random.choice(list(inside))
        inside[key], inside[other] = inside[other], inside[key]
