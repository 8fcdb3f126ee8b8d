"""A user's own data: ``pkg.mod:loader`` or ``file.py:loader``."""

from __future__ import annotations

from typing import Any

from hessrank.errors import DataError, HessrankError
from hessrank.plugins import import_attribute
from hessrank.text import one_line


def load_plugin(reference: str) -> Any:
    """Return the data that ``reference`` names or, where it names a function or a class, what that returns.

    Args:
        reference: ``pkg.mod:name`` or ``file.py:name``.

    Returns:
        Anything with ``[i]`` or that can be iterated over: a data set, a data loader, tensors.

    Raises:
        DataError: the code cannot be imported, the function raises, or there is no data in what it returns.
        HessrankError: the reference is malformed or names nothing.
    """
    try:
        thing = import_attribute(reference, what="data")
        if isinstance(thing, type) or (callable(thing) and not _holds_samples(thing)):
            thing = thing()
    except HessrankError:
        raise
    except Exception as error:  # the user's own code, which may raise anything
        raise DataError(f"--data {reference}: it raised {type(error).__name__}: {one_line(error)}") from error
    if isinstance(thing, str) or not _holds_samples(thing):
        raise DataError(
            f"--data {reference}: it gives a {type(thing).__name__}; give a data set, a data loader or tensors"
        )
    return thing


def _holds_samples(thing: object) -> bool:
    return hasattr(thing, "__getitem__") or hasattr(thing, "__iter__")
