"""Names that resolve to code: a registry by name, and ``pkg.module:attr`` or ``file.py:attr``.

Estimators, losses, architectures and data loaders are all found this way, so whatever the command line
can name, a user can write in a file of their own.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

from hessrank.errors import OptionError, UnknownNameError, unknown_name

T = TypeVar("T")


class Registry(Generic[T]):
    """Things of one sort by name; whoever asks for an unknown name is told the nearest."""

    def __init__(self, what: str) -> None:
        """Make an empty registry.

        Args:
            what: the sort of thing, in the singular, as error messages should call it ("estimator").
        """
        self.what = what
        self._known: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that stores what it decorates under ``name``."""

        def store(thing: T) -> T:
            self._known[name] = thing
            return thing

        return store

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __contains__(self, name: object) -> bool:
        return name in self._known

    def resolve(self, name: str) -> T:
        """Return the thing called ``name``, or the attribute that ``pkg.module:attr`` points at.

        Raises:
            UnknownNameError: there is no such name, module, file or attribute.
        """
        if name in self._known:
            return self._known[name]
        if ":" in name:
            thing: T = import_attribute(name, what=self.what)
            return thing
        raise unknown_name(self.what, name, self._known)


def import_attribute(reference: str, *, what: str) -> Any:
    """Return what ``pkg.module:attr`` or ``path/to/file.py:attr`` names.

    A module is looked for in the current folder too, as ``python -m`` does.

    Args:
        reference: the name; dots are allowed in ``attr``.
        what: what it should be, for the error message ("loss").

    Raises:
        OptionError: the reference has no ``:``.
        UnknownNameError: the module, the file or the attribute does not exist.
    """
    place, separator, attribute = reference.rpartition(":")
    if not separator or not place or not attribute:
        raise OptionError(f"{what} {reference!r}: write pkg.module:name or file.py:name")
    module = _import_file(Path(place), what) if place.endswith(".py") else _import_module(place, what)
    thing: Any = module
    for part in attribute.split("."):
        if not hasattr(thing, part):
            public = [name for name in vars(thing) if not name.startswith("_")] if hasattr(thing, "__dict__") else []
            raise unknown_name(f"{what} in {place}", part, public)
        thing = getattr(thing, part)
    return thing


def _import_file(path: Path, what: str) -> ModuleType:
    if not path.is_file():
        raise UnknownNameError(f"{what} {path}: there is no such file")
    name = f"_hessrank_plugin_{path.stem}_{zlib.crc32(os.fsencode(path.resolve())):08x}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UnknownNameError(f"{what} {path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look a class's module up here
    with _importable(path.resolve().parent):  # the file's own folder, as `python file.py` has it
        spec.loader.exec_module(module)
    return module


def _import_module(name: str, what: str) -> ModuleType:
    with _importable(Path.cwd()):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
                raise UnknownNameError(f"{what} {name!r}: there is no module named {error.name!r}") from error
            raise


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        if str(folder) in sys.path:
            sys.path.remove(str(folder))
