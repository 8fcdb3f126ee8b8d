"""Names that have changed: the old ones work for one more release, with a warning."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def warn_renamed(old: str, new: str, *, stacklevel: int = 3) -> None:
    """Warn that ``old`` is called ``new`` now."""
    warnings.warn(f"{old} is {new} now; the old name goes in release 0.8", DeprecationWarning, stacklevel=stacklevel)


def renamed_names(module: str, scope: dict[str, Any], **names: str) -> Callable[[str], Any]:
    """Return the ``__getattr__`` of a module that finds things under their old names.

    Args:
        module: the module's name.
        scope: its globals.
        names: the new names by the old ones.
    """

    def find(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        warn_renamed(f"{module}.{name}", names[name])
        return scope[names[name]]

    return find


def renamed_arguments(**names: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator that lets a function take keyword arguments under their old names too.

    Args:
        names: the new names by the old ones.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            for old in names.keys() & kwargs.keys():
                warn_renamed(f"{function.__name__}'s argument {old}", names[old])
                kwargs[names[old]] = kwargs.pop(old)
            return function(*args, **kwargs)

        return call

    return decorate
