"""Reads programs that ``torch.export.save`` wrote (``.pt2``), with their names.

Such a file can run code when it is read: ``torch.export.load`` reads some tensors with
``weights_only=False``, falls back from ``weights_only=True`` to a full pickle for the sample inputs, and
evaluates the shapes' symbolic expressions through ``sympy.sympify``, which calls ``eval``. So it is read
behind ``trust_pickle`` only.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hessrank.errors import LoadError
from hessrank.files.size_limits import check_archive
from hessrank.text import one_line, shape_text
from hessrank.user_code import keep_process_state


def read_exported(path: Path, *, trust_pickle: bool) -> tuple[nn.Module, Tensor | None]:
    """Return the program as a module, and its sample input if it is one tensor.

    The input's first dimension counts the samples.

    Raises:
        LoadError: the file is not trusted, damaged, or holds no exported program.
    """
    if not trust_pickle:
        raise LoadError(
            f"{path}: a torch.export program can run code when read; if you trust its maker, add "
            "--trust-pickle (trust_pickle=True), else save its state_dict and give --arch"
        )
    check_archive(path, error=LoadError)
    try:
        with _silence(), keep_process_state(), path.open("rb") as file:
            program = torch.export.load(file)
            module = torch.export.unflatten(program)
    except Exception as error:  # torch.export raises several kinds here
        raise LoadError(f"{path}: torch.export cannot read this program: {one_line(error)}") from error
    example: tuple[Any, Any] = program.example_inputs or ((), {})
    args, kwargs = example
    single = len(args) == 1 and not kwargs and isinstance(args[0], Tensor) and args[0].ndim > 0
    return module.eval(), args[0].detach() if single else None


def exported_note(inputs: Tensor | None) -> str:
    """Return a sentence on the shapes that an exported program takes."""
    shape = f" with an input of {shape_text(tuple(inputs.shape))}" if inputs is not None else ""
    return f"exported{shape}; other shapes run only along dimensions that were exported as dynamic"


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Silence torch.export's log inside the block.

    It prints the traceback of an error that is then raised again.
    """
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(before)
