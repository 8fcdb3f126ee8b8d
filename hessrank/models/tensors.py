"""Checks tensors of files: the memory they claim, the types they have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from hessrank.errors import HessrankError
from hessrank.files.size_limits import check_claim
from hessrank.text import dtype_text

_COMPUTED_WITH = {torch.float64, torch.float32, torch.float16, torch.bfloat16}


def check_tensors(path: Path, held: object, *, error: type[HessrankError]) -> None:
    """Refuse tensors that have far more elements than the file holds.

    One value may be repeated at will.

    Args:
        path: the file.
        held: what was read from it: tensors in any nest of containers, which may hold themselves.
        error: the class of the error to raise.

    Raises:
        HessrankError: (as ``error``) they claim too much.
    """
    claimed = sum(tensor.numel() * tensor.element_size() for tensor in _find_tensors(held))
    check_claim(path, claimed, "the tensors in it", error=error)


def why_unusable(tensor: Tensor) -> str:
    """Return why a tensor cannot be computed with; empty if it can.

    The text is ``is …; what to do``.
    """
    if tensor.is_quantized or tensor.is_nested or tensor.layout != torch.strided:
        return "is a sparse, nested or quantized tensor; store a dense one"
    if tensor.is_meta:
        return "is a meta tensor, which holds no values; store it from a device that has them"
    if tensor.is_floating_point() and tensor.dtype not in _COMPUTED_WITH:
        return f"is of type {dtype_text(tensor.dtype)}; store it as float32 or bfloat16"
    return ""


def _find_tensors(held: object) -> Iterator[Tensor]:
    """Yield each dense tensor in a nest of containers once."""
    seen, left = set(), [held]
    while left:
        thing = left.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, Tensor):
            if thing.layout == torch.strided and not thing.is_nested:
                yield thing
        elif isinstance(thing, Mapping):
            left.extend(thing.values())
        elif isinstance(thing, list | tuple | set | frozenset):
            left.extend(thing)
        elif isinstance(thing, nn.Module):
            left.extend((*thing.parameters(), *thing.buffers()))
