"""What can go wrong with an export."""

from __future__ import annotations

import importlib

from hessrank.errors import HessrankError


class ExportError(HessrankError):
    """A model that does not become an ONNX file, or a file that does not compute what the model computes."""


def require_onnx() -> None:
    """Refuse an export before any work is done where a package for it is missing.

    Raises:
        ExportError: saying what to install.
    """
    for name in ("onnx", "onnxscript", "onnxruntime"):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ExportError(
                f"ONNX export needs {name}, which does not import: pip install 'hessrank[onnx]'"
            ) from error
