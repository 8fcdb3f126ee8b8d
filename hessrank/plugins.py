"""Names that resolve to code: a registry by name, and ``pkg.module:attr`` or ``file.py:attr``.

Estimators, losses, architectures and data loaders are all found this way, so whatever the command line
can name, a user can write in a file of their own. Only what the user types is imported: a name that comes out of a
file goes to :meth:`Registry.resolve`, which knows what hessrank has and imports nothing else.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

from hessrank.errors import HessrankError, OptionError, UnknownNameError, unknown_name
from hessrank.files.paths import readable_file, shown_path
from hessrank.text import printable
from hessrank.user_code import user_code

T = TypeVar("T")


class Registry(Generic[T]):
    """Things of one sort by name; whoever asks for an unknown name is told the nearest.

    Attributes:
        what: the sort of thing, in the singular, as error messages call it ("estimator").
    """

    def __init__(self, what: str, modules: Mapping[str, str] | None = None) -> None:
        """Make a registry.

        Args:
            what: the sort of thing.
            modules: names of the built-in things, each with the module that registers it. It is imported when the
                thing is first asked for, so that listing names costs nothing.
        """
        self.what = what
        self._modules = dict(modules or {})
        self._known: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that stores what it decorates under ``name``."""

        def store(thing: T) -> T:
            self._known[name] = thing
            return thing

        return store

    def __iter__(self) -> Iterator[str]:
        return iter({**self._modules, **self._known})

    def __contains__(self, name: object) -> bool:
        return name in self._known or name in self._modules

    def resolve(self, name: str) -> T:
        """Return the thing called ``name``; only a built-in one's module is imported, wherever the name comes from.

        Raises:
            UnknownNameError: there is no such name.
        """
        if name not in self:
            raise unknown_name(self.what, name, self)
        if name not in self._known:
            importlib.import_module(self._modules[name])
        return self._known[name]

    def resolve_or_import(self, name: str) -> T:
        """Return the thing called ``name``, or the attribute that ``pkg.module:attr`` points at.

        Only for what the user himself says: importing runs code.

        Raises:
            UnknownNameError: there is no such name, module, file or attribute.
        """
        if name in self or ":" not in name:
            return self.resolve(name)
        thing: T = import_attribute(name, what=self.what)
        return thing


def import_attribute(reference: str, *, what: str, error: type[HessrankError] = OptionError) -> Any:
    """Return what ``pkg.module:attr`` or ``path/to/file.py:attr`` names.

    A module is looked for in the current folder too, as ``python -m`` does. What importing it changes in this
    process is put back.

    Args:
        reference: the name; dots are allowed in ``attr``.
        what: what it should be, for the error message ("loss").
        error: the class of the error where the code raises one.

    Raises:
        OptionError: the reference has no ``:``.
        UnknownNameError: the module, the file or the attribute does not exist.
        HessrankError: (as ``error``) importing it raised something.
    """
    place, separator, attribute = reference.rpartition(":")
    if not separator or not place or not attribute:
        raise OptionError(f"{what} {printable(reference)!r}: write pkg.module:name or file.py:name")
    with user_code(f"{what} {shown_path(reference)}: importing it", error):
        thing = _import_file(Path(place), what) if place.endswith(".py") else _import_module(place, what)
        for part in attribute.split("."):
            if not hasattr(thing, part):
                public = [n for n in vars(thing) if not n.startswith("_")] if hasattr(thing, "__dict__") else []
                raise unknown_name(f"{what} in {shown_path(place)}", part, public)
            thing = getattr(thing, part)
    return thing


def from_here(reference: str, near: Path) -> str:
    """Return ``file.py:name``, which a file names from a folder of its own, as it is named from the current one.

    Args:
        reference: what the file says.
        near: the file's folder, which may lie below the one that its names start from.

    Returns:
        the reference to the first file of that name in the current folder, in ``near`` or above; if there is none,
        ``reference`` itself.
    """
    place, _, attribute = reference.rpartition(":")
    folders = [Path(), near, *near.parents, *near.resolve().parents]
    found = [folder / place for folder in folders if place.endswith(".py") and _is_file(folder / place)]
    return f"{found[0]}:{attribute}" if found else reference


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _import_file(path: Path, what: str) -> Any:
    try:
        readable_file(path, error=UnknownNameError)
    except UnknownNameError as error:
        raise UnknownNameError(f"{what} {error}") from error
    name = f"_hessrank_plugin_{path.stem}_{zlib.crc32(str(path.resolve()).encode(errors='surrogateescape')):08x}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UnknownNameError(f"{what} {shown_path(path)}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look a class's module up here
    with _importable(path.resolve().parent):  # the file's own folder, as `python file.py` has it
        spec.loader.exec_module(module)
    return module


def _import_module(name: str, what: str) -> Any:
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
