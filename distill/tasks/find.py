"""Tasks by name, made with what a run file gives them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hessrank.distill.tasks.base import TASKS, Task
from hessrank.errors import OptionError, unknown_name
from hessrank.user_code import user_code

_PARTS = ("monitor", "model", "training_data", "validation_data", "loss", "metrics")
_GIVEN = ("self", "data", "folder", "seed")


def find_task(name: str) -> type[Task]:
    """Return the class of a task: ``lowlight``, ``classification``, ``pkg.mod:Class`` or ``file.py:Class``.

    Raises:
        HessrankError: there is no such task, or its code cannot be imported.
    """
    found: Any = TASKS.resolve_or_import(name)
    missing = [part for part in _PARTS if not hasattr(found, part)]
    if not isinstance(found, type) or missing:
        lacks = f", it lacks {', '.join(missing)}" if isinstance(found, type) else ""
        raise OptionError(f"task {name}: this is no class like hessrank.distill.tasks.Task{lacks}")
    return found


def make_task(
    name: str | type[Task], data: str | None, folder: Path, seed: int, arguments: Mapping[str, Any]
) -> Task:
    """Make a task.

    Args:
        name: as for :func:`find_task`, or the class itself.
        data: a path or a name; None for the task's default.
        folder: where relative paths start.
        seed: of the data's randomness.
        arguments: the task's own.

    Raises:
        UnknownNameError: it takes no such argument; the nearest is named.
        HessrankError: the data are not there.
    """
    kind = find_task(name) if isinstance(name, str) else name
    parameters = inspect.signature(kind).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for argument in arguments:
        if argument in _GIVEN or (argument not in parameters and not takes_any):
            own = [p for p in parameters if p not in _GIVEN]
            raise unknown_name(f"argument of the task {name}", argument, own)
    with user_code(f"task {name}: making it", OptionError):
        return kind(data, folder=folder, seed=seed, **arguments)
