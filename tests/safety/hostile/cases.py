"""From a command, a seed and a number to one case, always the same."""

from __future__ import annotations

import os
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from random import Random

from . import mutators
from .options import any_word, options_of
from .recipes import RECIPES, SHARES, Recipe

ALWAYS_THERE = ("occupied", "pipe.csv", "loop.csv", "null.csv")


@dataclass(frozen=True)
class Case:
    """A command to run in a folder that has been filled.

    Attributes:
        command: which one.
        seed: of the run.
        number: of the case among those of its command.
        arguments: of ``hessrank``.
        changed: what was changed, for people; empty if nothing was: then the command has to succeed.
        names: what an error may name: spoiled files, options and their values.
        files: what it reads.
    """

    command: str
    seed: int
    number: int
    arguments: tuple[str, ...]
    changed: str
    names: tuple[str, ...]
    files: tuple[str, ...]

    @property
    def again(self) -> str:
        """The command line that repeats it."""
        return f"python -m tests.safety.hostile --seed {self.seed} --command {self.command} --case {self.number}"

    def __str__(self) -> str:
        return f"hessrank {shlex.join(self.arguments)}   [{self.changed}]"


def numbers(count: int) -> list[tuple[str, int]]:
    """Return (command, number) of so many cases, spread over the commands."""
    turns = [command for place in range(max(SHARES.values())) for command in SHARES if place < SHARES[command]]
    seen = dict.fromkeys(SHARES, 0)
    chosen = []
    for place in range(count):
        command = turns[place % len(turns)]
        chosen.append((command, seen[command]))
        seen[command] += 1
    return chosen


def make_case(command: str, seed: int, number: int, inputs: Path, folder: Path) -> Case:
    """Fill a folder with a command's files, spoil something, and return the case.

    Args:
        command: a key of ``RECIPES``.
        seed: of the run.
        number: of the case among those of its command.
        inputs: where the valid files lie.
        folder: an empty folder.
    """
    random = Random(f"{seed}/{command}/{number}")
    recipe = random.choice(RECIPES[command])
    for name in (*recipe.files, *ALWAYS_THERE):
        _copy(inputs / name, folder / name)
    what = random.choice(("file",) * 7 + ("option",) * 3 + ("path", "both", "nothing"))
    changed, names, arguments = [], [], recipe.arguments
    if what in ("file", "both"):
        file = random.choice(sorted(_spoilable(recipe, folder)))
        changed.append(f"{mutators.spoil(file, random)} {file.relative_to(folder)}")
        names.append(file.name)
    if what in ("option", "both"):
        arguments, said, named = _with_option(command, recipe, random)
        changed.append(said)
        names.extend(named)
    if what == "path":
        arguments, said, named = _with_path(recipe, random)
        changed.append(said)
        names.extend(named)
    return Case(command, seed, number, arguments, "; ".join(changed), tuple(names), recipe.files)


def _copy(source: Path, target: Path) -> None:
    if source.is_symlink():
        target.symlink_to(source.readlink())
    elif source.is_fifo():
        os.mkfifo(target)
    elif source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copy2(source, target)


def _spoilable(recipe: Recipe, folder: Path) -> list[Path]:
    """Return the files that a case may spoil; code is the user's own."""
    found = [path for name in recipe.files for path in ((folder / name), *(folder / name).rglob("*"))]
    return [path for path in found if path.is_file() and path.suffix != ".py"]


def _with_option(command: str, recipe: Recipe, random: Random) -> tuple[tuple[str, ...], str, list[str]]:
    """Return the arguments with one more option."""
    option = random.choice([option for option in options_of(command) if not option.is_argument])
    name = random.choice(option.names)
    if not option.takes_value:
        return (*recipe.arguments, name), name, [name]
    word = any_word(random, recipe.files, option.names[0])
    return (*recipe.arguments, f"{name}={word}"), f"{name} {word[:40]!r}", [name, *_said_as(word)]


def _with_path(recipe: Recipe, random: Random) -> tuple[tuple[str, ...], str, list[str]]:
    """Return the arguments with another word in the place of one that names a file."""
    places = [n for n, word in enumerate(recipe.arguments) if "." in word or word in recipe.files]
    place = random.choice(places)
    word = any_word(random, recipe.files)
    word = f"./{word}" if word.startswith("-") else word  # else it is an option
    arguments = list(recipe.arguments)
    old, arguments[place] = arguments[place], word
    option = arguments[place - 1] if place else ""
    return tuple(arguments), f"{old} → {word[:40]!r}", [old, option, *_said_as(word)]


def _said_as(word: str) -> tuple[str, ...]:
    """Return how an error may show a value: of ``file.py:name`` the file."""
    return (word, word.partition(":")[0]) if word else ("is empty", ".:")
