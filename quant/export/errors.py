"""What can go wrong with an export."""

from __future__ import annotations

import importlib

from hessrank.errors import HessrankError
from hessrank.requirements import install_command


class ExportError(HessrankError):
    """A model that does not become an ONNX file.

    Or a file that does not compute what the model computes.
    """


def require_onnx() -> None:
    """Refuse an export before any work is done where a package for it is missing.

    Raises:
        ExportError: saying what to install.
    """
    missing: list[str] = []
    why: ImportError | None = None
    for name in ("onnx", "onnxscript", "onnxruntime"):
        try:
            importlib.import_module(name)
        except ImportError as error:
            missing, why = [*missing, name], error
    if missing:
        raise ExportError(f"ONNX export needs {', '.join(missing)}: {install_command(*missing)}") from why
