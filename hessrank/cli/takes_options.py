"""How a command takes whole groups of options."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import wraps
from inspect import Parameter
from typing import Any, get_type_hints


def takes_options(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command take its options in groups.

    A group is a frozen dataclass whose fields are annotated as typer's options. The command that typer sees has the
    fields in the place of each parameter that is annotated with a group; the command itself is given the group.

    Args:
        command: its parameters are options, arguments or groups.

    Returns:
        the command with a signature of single options, all given by name.
    """
    hints = get_type_hints(command, include_extras=True)
    own = [p.replace(annotation=hints[p.name]) for p in inspect.signature(command).parameters.values()]
    groups = {p.name: _list_options(p.annotation) for p in own if is_dataclass(p.annotation)}
    options = [option for p in own for option in groups.get(p.name, [p])]

    @wraps(command)
    def take_single_options(**given: Any) -> None:
        filled = {
            name: hints[name](**{option.name: given.pop(option.name) for option in members})
            for name, members in groups.items()
        }
        command(**given, **filled)

    signed: Any = take_single_options
    signed.__signature__ = inspect.Signature([o.replace(kind=Parameter.KEYWORD_ONLY) for o in options])
    signed.__annotations__ = {option.name: option.annotation for option in options}
    return take_single_options


def _list_options(group: Any) -> list[Parameter]:
    """Return a group's fields as parameters, in their order."""
    hints, defaults = get_type_hints(group, include_extras=True), inspect.signature(group).parameters
    return [defaults[field.name].replace(annotation=hints[field.name]) for field in fields(group)]
