"""Runs passes in half precision (autocast), and sums in float32.

float16 has no room for small gradients: they are scaled up before the backward pass, and back behind it
(Micikevicius et al., "Mixed precision training", 2018, section 3.2).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from hessrank.errors import ModelError, unknown_name

T = TypeVar("T")

PRECISIONS: dict[str, torch.dtype | None] = {"32": None, "bf16": torch.bfloat16, "16": torch.float16}
_HALF = (torch.bfloat16, torch.float16)
_LARGEST_SEED = 16.0  # of float16's 65504: gradients may grow on their way back, and mostly shrink
_SMALLER = 64.0
_TRIALS = 8


def read_precision(name: str) -> torch.dtype | None:
    """Return the type that passes are computed in; None for the network's own.

    Raises:
        UnknownNameError: there is no precision of that name.
    """
    if name not in PRECISIONS:
        raise unknown_name("precision", name, PRECISIONS)
    return PRECISIONS[name]


def autocast(dtype: torch.dtype | None, device: torch.device) -> AbstractContextManager[Any]:
    """Return the block in which a forward pass runs in ``dtype`` where safe."""
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype)


def widen(value: Any) -> Any:
    """Return a tensor, or a nest of them, with half precision as float32."""
    return tree_map(lambda x: x.float() if isinstance(x, Tensor) and x.dtype in _HALF else x, value)


def run_backward(
    send: Callable[[list[Tensor], bool], T],
    seeds: Sequence[Tensor],
    dtype: torch.dtype | None,
    finite: Callable[[T], bool],
    *,
    keep: bool,
) -> tuple[T, float]:
    """Run a backward pass in the precision of its forward pass.

    Args:
        send: sends seeds back, keeps the graph if told so, and returns what it found on the way.
        seeds: a gradient for each output.
        dtype: the precision.
        finite: whether what was found is.
        keep: keep the graph for another pass.

    Returns:
        what was found, and the factor that its gradients are too large by.

    Raises:
        ModelError: the gradients have no common scale in float16.
    """
    if dtype is not torch.float16:
        return send(list(seeds), keep), 1.0
    largest = max(float(seed.abs().max()) for seed in seeds)
    factor = _LARGEST_SEED / largest if largest > 0 else 1.0
    for _ in range(_TRIALS):
        found = send([seed * factor for seed in seeds], True)
        if finite(found):
            return found, factor
        factor /= _SMALLER
    raise ModelError("gradients overflow float16 at every scale: use precision bf16")
