"""Every option of every command, and words and numbers that it does not expect."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any

import typer.main

from hessrank.cli.app import app

from .values import NUMBERS, TEXTS

_PLACES = ("", ".", "..", "missing/new.csv", "occupied", "occupied/mine.txt", "pipe.csv", "loop.csv", "null.csv")
_PLACES += ("x" * 300 + ".csv", "\udcff.csv", "~nobody/new.csv", "new.csv", "new.png", "new.yaml", "-", "a\tb.csv")
_BIG = (65, 1000, 10**6)
_WORK = ("--epochs", "--max-probes", "--increase-probes", "--devices", "--num-nodes", "--threads")
"""More of these is more work or more processes, which is no mistake."""


@dataclass(frozen=True)
class Option:
    """An option, or an argument, of a command.

    Attributes:
        names: as it is written, ``--out``; of an argument its name in upper case.
        takes_value: whether a value follows.
        is_argument: whether it is known by its place.
    """

    names: tuple[str, ...]
    takes_value: bool
    is_argument: bool


@cache
def commands() -> dict[str, Any]:
    """Return the commands by name, by asking the command line itself."""
    group: Any = typer.main.get_command(app)
    return dict(group.commands)


@cache
def options_of(command: str) -> tuple[Option, ...]:
    """Return the options and arguments of a command."""
    found = commands()["rank" if command == "default" else command].params
    return tuple(_option(parameter) for parameter in found)


def _option(parameter: Any) -> Option:
    if parameter.param_type_name == "argument":
        return Option((parameter.name.upper(),), takes_value=True, is_argument=True)
    names = (*parameter.opts, *parameter.secondary_opts)
    return Option(names, takes_value=not parameter.is_flag, is_argument=False)


def any_word(random: Random, files: tuple[str, ...], name: str = "") -> str:
    """Return a hostile value for the option ``name``: a place, a file that is read, a number or a text."""
    kind = random.choice(("place", "file", "number", "number", "text"))
    if kind == "place":
        return random.choice(_PLACES)
    if kind == "file":
        return random.choice(files)
    if kind == "number":
        number = random.choice((*NUMBERS, *_BIG))
        return "0" if name in _WORK and 1 < number < 2**62 else str(number)[:400]
    return random.choice([text for text in TEXTS if "\0" not in text])  # no argument of a process holds a NUL
