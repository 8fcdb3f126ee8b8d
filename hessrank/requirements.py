"""Tells how to install what an optional part of hessrank needs.

The versions are those of hessrank's own metadata, so the command works wherever hessrank itself came from: a clone,
a wheel, an index.
"""

from __future__ import annotations

import shlex
import shutil
import sys
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def install_command(*packages: str) -> str:
    """Return the command that installs ``packages`` beside hessrank.

    Args:
        packages: names of distributions, as an index knows them.

    Example:
        >>> install_command("rawpy").endswith("pip install 'rawpy>=0.24'")
        True
    """
    found = shutil.which("pip")  # which may be that of another environment
    own = found is not None and Path(found).parent == Path(sys.executable).parent
    pip = ["pip"] if own else [sys.executable, "-m", "pip"]
    return shlex.join([*pip, "install", *map(_find_requirement, packages)])


def _find_requirement(package: str) -> str:
    """Return a package with the versions that hessrank's metadata state.

    It is the bare name where they state none.
    """
    try:
        stated = map(Requirement, requires("hessrank") or ())
    except PackageNotFoundError:  # run from a folder that nobody installed
        return package
    named = (needed for needed in stated if canonicalize_name(needed.name) == canonicalize_name(package))
    return next((f"{needed.name}{needed.specifier}" for needed in named), package)
