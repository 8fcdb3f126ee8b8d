"""Rounding to a grid, with gradients for the value, the scale and the two ends of the grid.

Forward: y = (clamp(round(x/s) + z, quant_min, quant_max) − z) · s. Seen as a function of the value x, the
scale s and the ends ``low`` and ``high``, as if these were independent, its straight-through gradient is

    ∂y/∂x = 1 inside, 0 outside        ∂y/∂s = round(x/s) − x/s inside, 0 outside
    ∂y/∂low = 1 below, else 0          ∂y/∂high = 1 above, else 0

and each method makes of it what its paper says by the chain rule. Inside is low < x < high, as LSQ, LSQ+ and
PACT define it. ``torch._fake_quantize_learnable_*`` counts the half step beyond either end as inside, where
its gradient of the scale differs from LSQ's (at x = 1.4·s with quant_max = 1 it is −0.4 instead of 1).
On a CPU this is about three times as fast as ``torch.fake_quantize_per_tensor_affine``, whose kernel is not
vectorized.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from hessrank.quant.quantizers.grids import across
from hessrank.quant.scheme import Scheme

Bound = Any  # a float or a tensor that broadcasts: torch's operators take both


def round_to_grid(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    scheme: Scheme,
    axis: int | None,
    *,
    low: Tensor | None = None,
    high: Tensor | None = None,
    margin: float = 0.0,
) -> Tensor:
    """Return x rounded to the grid, of the same shape and dtype.

    Args:
        x: any shape; float32, float64, bfloat16 or half.
        scale: shape (1,) or (channels,); gets a gradient if it requires one.
        zero_point: integers, of the same shape.
        scheme: smallest and largest integer.
        axis: which axis counts the channels.
        low: takes the gradient of the lower end; its value is not looked at.
        high: the same for the upper end.
        margin: how far beyond the ends, in steps, x still gets a gradient.
    """
    y: Tensor = _RoundToGrid.apply(  # type: ignore[no-untyped-call]
        x, scale, low, high, zero_point, scheme, axis, margin
    )
    return y


def _operands(x: Tensor, scale: Tensor, zero_point: Tensor, axis: int | None) -> tuple[Bound, Bound]:
    """Return scale and zero point as they go fastest: numbers on a CPU, where reading them waits for nothing."""
    if axis is None and scale.is_cpu and not torch.compiler.is_compiling():
        return scale.item(), int(zero_point)
    return across(scale, axis, x.dim()), across(zero_point, axis, x.dim())


class _RoundToGrid(Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        scale: Tensor,
        low: Tensor | None,
        high: Tensor | None,
        zero_point: Tensor,
        scheme: Scheme,
        axis: int | None,
        margin: float,
    ) -> Tensor:
        s, z = _operands(x, scale, zero_point, axis)
        first, last = scheme.quant_min - z, scheme.quant_max - z
        wide = x if x.dtype in (torch.float32, torch.float64) else x.float()
        y: Tensor = (wide / s).round_().clamp_(first, last).mul_(s).to(x.dtype)
        ctx.axis = axis
        ctx.bounds = ((first - margin) * s, (last + margin) * s)
        ctx.save_for_backward(*((x, y, scale) if any(ctx.needs_input_grad[1:4]) else (x,)))
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, *learned = ctx.saved_tensors
        slope, (low, high) = gradients[0], ctx.bounds
        inner = _between(slope, x, low, high)
        found: list[Tensor | None] = [None, None, None]
        if learned:
            y, scale = learned
            if ctx.needs_input_grad[1]:
                found[0] = _dot(inner, y - x, ctx.axis) / scale
            if ctx.needs_input_grad[2] or ctx.needs_input_grad[3]:
                found[1:] = _ends(slope - inner, y, low, high, ctx.axis)
        return inner if ctx.needs_input_grad[0] else None, *found, None, None, None, None


def _between(slope: Tensor, x: Tensor, low: Bound, high: Bound) -> Tensor:
    """Return ``slope`` where low < x < high and 0 elsewhere."""
    if isinstance(low, float):
        inner: Tensor = torch.ops.aten.hardtanh_backward(slope, x, low, high)
        return inner
    return torch.where((x > low).logical_and_(x < high), slope, 0.0)


def _ends(outer: Tensor, y: Tensor, low: Bound, high: Bound, axis: int | None) -> tuple[Tensor, Tensor]:
    """Return the sums of ``outer``, which is 0 inside, over what is below and what is above.

    There y is one end or the other, so that Σ outer and Σ outer·y tell the two sums apart.
    """
    total, weighted = _total(outer, axis), _dot(outer, y, axis)
    if not isinstance(low, float):
        low, high = low.flatten(), high.flatten()
    above = (weighted - low * total) / (high - low)
    return total - above, above


def _dot(a: Tensor, b: Tensor, axis: int | None) -> Tensor:
    """Return Σ a·b, of shape (1,) or (channels,), in float32 at least."""
    if a.dtype not in (torch.float32, torch.float64):
        a, b = a.float(), b.float()
    if axis is None:
        return torch.dot(a.reshape(-1), b.reshape(-1)).reshape(1)
    return _total(a * b, axis)


def _total(a: Tensor, axis: int | None) -> Tensor:
    """Return the sum of all elements, or of each channel's."""
    dtype = a.dtype if a.dtype == torch.float64 else torch.float32
    if axis is None:
        return a.sum(dtype=dtype).reshape(1)
    return a.movedim(axis, 0).flatten(1).sum(1, dtype=dtype)
