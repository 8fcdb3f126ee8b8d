"""Tensors and arrays that nobody expects."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .values import any_value


def any_tensor(random: Random, old: Any) -> Any:
    """Return what could lie in the place of ``old`` in a checkpoint: another tensor, or any other value."""
    if not isinstance(old, Tensor) or random.random() < 0.2:
        return any_value(random)
    return random.choice(_TENSORS)(old.dequantize() if old.is_quantized else old)


def any_array(random: Random, old: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return another array for ``old``, of another type, shape, or with other numbers."""
    with np.errstate(all="ignore"):
        return random.choice(_ARRAYS)(old)


def _filled(value: float) -> Any:
    return lambda old: torch.full_like(old.float(), value)


def _one(value: float) -> Any:
    def spoiled(old: Tensor) -> Tensor:
        new = old.float().clone()
        new.reshape(-1)[:1] = value
        return new

    return spoiled


_TENSORS: tuple[Any, ...] = (
    *map(_filled, (0.0, float("nan"), float("inf"), 1e38, 1e-45)),
    *map(_one, (float("nan"), -float("inf"), 3e38)),
    *(lambda old, kind=kind: old.to(kind) for kind in (torch.float16, torch.bfloat16, torch.float64, torch.int8)),
    *(lambda old, kind=kind: old.to(kind) for kind in (torch.bool, torch.complex64, torch.float8_e4m3fn)),
    lambda old: old.reshape(-1),
    lambda old: old[:0] if old.dim() else old,
    lambda old: old[None],
    lambda old: old.new_zeros(()),
    lambda old: old.float().mean().expand(1000, 1000, 1000),
    lambda old: old.to("meta"),
    lambda old: old.to_sparse() if old.dim() else old,
    lambda old: torch.quantize_per_tensor(old.float(), 0.1, 0, torch.qint8),
    lambda old: torch.nn.Parameter(old.float()),
    lambda old: old.double() * 1e300,
)
_ARRAYS: tuple[Any, ...] = (
    *(lambda old, value=value: np.full_like(old, value, dtype=np.float32) for value in (0, np.nan, np.inf, 1e38)),
    *(
        lambda old, kind=kind: old.astype(kind)
        for kind in (np.float16, np.float64, np.longdouble, np.complex64, bool)
    ),
    *(
        lambda old, kind=kind: old.astype(kind)
        for kind in (np.int8, np.uint16, np.uint64, ">f4", "U8", "S3", "M8[s]")
    ),
    lambda old: old[:0],
    lambda old: old[0] if old.ndim else old,
    lambda old: old[..., None],
    lambda old: old.reshape(-1),
    lambda old: np.array(3.0),
    lambda old: old.T,
    lambda old: old.astype(object),
    lambda old: old - 1000,
    lambda old: np.zeros((2**27,), dtype=np.uint8).reshape(2, -1) if old.ndim > 1 else old,
)
