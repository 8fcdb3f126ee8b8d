"""What holds for every registry with a table of built-in things."""

import subprocess
import sys
from typing import Any

from hessrank.plugins import Registry


def check_table(registry: Registry[Any]) -> None:
    """See that a table names just what its modules register, and that asking for them adds no name."""
    names = list(registry)
    modules = [registry.resolve(name).__module__ for name in names]
    assert modules == [registry._modules[name] for name in names]
    assert list(registry) == names


def check_listing_is_light(imports: str, listing: str, resolving: str) -> None:
    """See that registries list their names without torch, NumPy and pandas, and resolve one all the same.

    Args:
        imports: imports them.
        listing: an expression that is true, of their names.
        resolving: another, of a thing in them.
    """
    program = (
        f"import sys\n{imports}\nassert {listing}\n"
        f"assert not {{'torch', 'numpy', 'pandas'}} & set(sys.modules)\nassert {resolving}\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
