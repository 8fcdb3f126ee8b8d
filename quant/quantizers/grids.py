"""Make the integer grid of a tensor.

From a range to scale and zero point, and gradients past the rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from hessrank.affine_grid import TINY, affine_grid
from hessrank.quant.scheme import Scheme


@dataclass(frozen=True)
class Grid:
    """What an integer kernel needs to know of a tensor.

    value = (integer − zero_point) · scale.

    Attributes:
        scale: float32, shape (1,) or (channels,); in units of the tensor.
        zero_point: int32, of the same shape; the integer that stands for 0.
        quant_min: smallest integer.
        quant_max: largest integer.
        axis: which axis of the tensor counts the channels; None where there is one scale.
    """

    scale: Tensor
    zero_point: Tensor
    quant_min: int
    quant_max: int
    axis: int | None


def range_to_grid(low: Tensor, high: Tensor, scheme: Scheme) -> tuple[Tensor, Tensor]:
    """Return scale and zero point of the grid over [low, high].

    The range is widened to hold 0 (Jacob et al. 2018); the zero point is int32.

    An affine scale is (high − low)/quant_max, a symmetric one max(|low|, |high|)/quant_max; a
    range that is nothing but 0 gets scale 1. The scale is differentiable; low and high have the same shape.
    """
    low, high = low.clamp(max=0), high.clamp(min=0)
    if scheme.symmetric:
        scale = torch.maximum(-low, high) / scheme.quant_max
        scale = torch.where(scale < TINY, 1.0, scale)
        zero_point = torch.zeros_like(scale)
    else:
        scale, zero_point = affine_grid(low, high, scheme.quant_max)
    return snap_scale(scale, scheme), zero_point.to(torch.int32)


def snap_scale(scale: Tensor, scheme: Scheme) -> Tensor:
    """Return a scale as the scheme allows it.

    Under ``pot_scale`` the nearest power of two (of the logarithm).

    The gradient goes straight through.
    """
    if not scheme.pot_scale:
        return scale
    exponent = scale.detach().log2().round().clamp(-126, 127)
    return straight_through(torch.ldexp(torch.ones_like(exponent), exponent), scale)


class _StraightThrough(Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, source: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor]:
        return None, gradients[0]


def straight_through(value: Tensor, source: Tensor) -> Tensor:
    """Return ``value`` to the last bit, with the gradient of ``source``.

    Both have the same shape.

    ``source + (value - source).detach()``, as it is often written, is off the grid by a rounding error.
    """
    result: Tensor = _StraightThrough.apply(value.detach(), source)  # type: ignore[no-untyped-call]
    return result


def across(tensor: Tensor, axis: int | None, ndim: int) -> Tensor:
    """Shape a tensor to broadcast along ``axis`` of ``ndim``.

    Its own shape is (1,) or (channels,).
    """
    return tensor.view([-1 if axis is not None and d == axis % ndim else 1 for d in range(ndim)])
