"""The training itself: from a run file, or from Python, to checkpoints, tables and pictures."""

from __future__ import annotations

from importlib.util import find_spec

from hessrank.errors import HessrankError
from hessrank.requirements import install_command


def require_lightning() -> None:
    """Refuse to train without the packages that it takes.

    Raises:
        HessrankError: naming what is missing and how to install it.
    """
    missing = [name for name in ("lightning", "torchmetrics", "tensorboard") if find_spec(name) is None]
    if missing:
        raise HessrankError(f"training needs {', '.join(missing)}: {install_command(*missing)}")
