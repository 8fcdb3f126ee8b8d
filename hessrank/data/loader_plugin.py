"""Loads a user's own data: ``pkg.mod:loader`` or ``file.py:loader``."""

from __future__ import annotations

from hessrank.data.data_source import Data
from hessrank.errors import DataError
from hessrank.plugins import import_attribute
from hessrank.user_code import user_code


def load_plugin(reference: str) -> Data:
    """Return the data that ``reference`` names.

    Where it names a function or a class, the data are what that returns.

    Args:
        reference: ``pkg.mod:name`` or ``file.py:name``.

    Returns:
        its data set is anything with ``[i]`` or that can be iterated over: a data set, a data loader, tensors.

    Raises:
        DataError: the code cannot be imported, the function raises, or there is no data in what it returns.
        HessrankError: the reference is malformed or names nothing.
    """
    label = f"--data {reference}"
    thing = import_attribute(reference, what="--data", error=DataError)
    with user_code(f"{label}: it", DataError):
        if isinstance(thing, type) or (callable(thing) and not _holds_samples(thing)):
            thing = thing()
        holds = not isinstance(thing, str) and _holds_samples(thing)
    if not holds:
        raise DataError(f"{label}: it gives a {type(thing).__name__}; give a data set, a data loader or tensors")
    kind = f"{type(thing).__module__}.{type(thing).__qualname__}"
    return Data(thing, {"kind": "plug-in", "path": reference, "sha256": None, "type": kind})


def _holds_samples(thing: object) -> bool:
    return hasattr(thing, "__getitem__") or hasattr(thing, "__iter__")
