"""Code that leaves a mark when it is imported or called, and files that name it wherever a file holds text."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hessrank.cli import main

EVIL = ("evil_module:f", "evil.py:f")
MARK = "mark"
PROJECT = """
import torch
from torch import nn
from torchmetrics import MeanSquaredError
from hessrank.distill.tasks import Task

def net():
    return nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 1))

class Sum(Task):
    monitor, mode = "error", "min"

    def __init__(self, data, *, folder, seed):
        self.x = torch.randn(8, 3, generator=torch.Generator().manual_seed(seed))

    def model(self):
        return net()

    def training_data(self):
        return self.x, self.x.sum(1, keepdim=True)

    def validation_data(self):
        return self.training_data()

    def loss(self, output, target):
        return nn.functional.mse_loss(output, target)

    def metrics(self):
        return {"error": MeanSquaredError()}
"""
"""A network and a task of a user's own."""
_CODE = f"""
from pathlib import Path
Path({MARK!r}).touch()
def f(*args, **kwargs):
    return args[0]
"""


class Pickled:
    """Leaves the mark when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path(MARK),)


@dataclass(frozen=True)
class Canary:
    """The current folder; who imports ``evil_module:f`` or ``evil.py:f`` in it leaves a mark."""

    folder: Path

    @property
    def sang(self) -> bool:
        """Whether code was run since the last time one looked."""
        sys.modules.pop("evil_module", None)
        mark = self.folder / MARK
        found = mark.exists()
        mark.unlink(missing_ok=True)
        return found

    def sings(self, *command: str) -> bool:
        """Return whether a command runs the code, however it ends."""
        with suppress(Exception):
            main(command)
        return self.sang


def cage(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Canary:
    """Make ``folder`` the current one, with code in it that leaves a mark."""
    for name in ("evil_module.py", "evil.py"):
        (folder / name).write_text(_CODE)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    return Canary(folder)


def poisoned(value: Any, evil: str, names: frozenset[str] = frozenset()) -> Iterator[tuple[str, Any]]:
    """Yield copies of plain values in each of which one text is ``evil``, with the place of that text.

    Args:
        value: dictionaries, lists and what is in them.
        evil: the text.
        names: keys that stand for one another (layers): of them, and of the items of a list, the first is enough.
    """
    seen = set()
    for path in _texts(value):
        place = "/".join("*" if isinstance(step, int) or step in names else step for step in path)
        if place not in seen:
            seen.add(place)
            changed = copy.deepcopy(value)
            holder = changed
            for step in path[:-1]:
                holder = holder[step]
            holder[path[-1]] = evil
            yield place, changed


def replaced(value: Any, text: str | None, evil: str) -> Any:
    """Return plain values in which ``text``, or every text for None, is ``evil``; the rest is left as it is."""
    if isinstance(value, str):
        return evil if text in (None, value) else value
    if isinstance(value, dict):
        return {key: replaced(held, text, evil) for key, held in value.items()}
    return [replaced(held, text, evil) for held in value] if isinstance(value, list) else value


def _texts(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, str):
        yield path
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, held in steps:
        yield from _texts(held, (*path, step))
