"""Round to a grid, with gradients.

For the value, the scale and the two ends of the grid.

Forward: y = (clamp(round(x/s) + z, quant_min, quant_max) − z) · s. Seen as a function of the value x, the
scale s and the ends ``low`` and ``high``, as if these were independent, its straight-through gradient is

    ∂y/∂x = 1 inside, 0 outside        ∂y/∂s = round(x/s) − x/s inside, 0 outside
    ∂y/∂low = 1 below, else 0          ∂y/∂high = 1 above, else 0

and each method makes of it what its paper says by the chain rule. Inside is low < x < high, as LSQ, LSQ+ and
PACT define it. ``torch._fake_quantize_learnable_*`` counts the half step beyond either end as inside, where
its gradient of the scale differs from LSQ's (at x = 1.4·s with quant_max = 1 it is −0.4 instead of 1).
On a CPU this is several times as fast as ``torch.fake_quantize_per_tensor_affine`` and ``…_per_channel_affine``,
whose kernels are not vectorized. For the same reason nothing here compares or clamps with a bound for each
channel: where the zero points differ, values are shifted by them, and the bounds are numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from hessrank.quant.quantizers.grids import across
from hessrank.quant.scheme import Scheme


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
    stretch: bool = False,
    damping: float = 1.0,
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
        stretch: the ends are multiples of the scale, whose gradient then includes theirs: the end's integer less
            the zero point outside.
        damping: factor of the gradients of scale, low and high.
    """
    rule = _Rule(scheme, axis, margin, stretch, damping)
    y: Tensor = _RoundToGrid.apply(x, scale, low, high, zero_point, rule)  # type: ignore[no-untyped-call]
    return y


@dataclass(frozen=True)
class _Rule:
    scheme: Scheme
    axis: int | None
    margin: float
    stretch: bool
    damping: float


@dataclass(frozen=True)
class _Steps:
    """Values counted in steps: x/scale + shift.

    There every channel has the same two ends.

    With one scale on a CPU scale is a number, which reading waits for nothing, and nothing needs a shift.
    """

    scale: float | Tensor
    shift: Tensor | None
    first: int
    last: int

    @classmethod
    def of(cls, scale: Tensor, zero_point: Tensor, rule: _Rule, ndim: int) -> _Steps:
        first, last = rule.scheme.quant_min, rule.scheme.quant_max
        if rule.axis is None and scale.is_cpu and not torch.compiler.is_compiling():
            z = int(zero_point)
            return cls(scale.item(), None, first - z, last - z)
        shift = None if rule.scheme.symmetric else across(zero_point, rule.axis, ndim)
        return cls(across(scale, rule.axis, ndim), shift, first, last)

    def round(self, x: Tensor) -> Tensor:
        steps = (x / self.scale).round_()
        if self.shift is None:
            return steps.clamp_(self.first, self.last).mul_(self.scale)
        return steps.add_(self.shift).clamp_(self.first, self.last).sub_(self.shift).mul_(self.scale)

    def places(self, x: Tensor, margin: float) -> tuple[Tensor, float, float]:
        """Return what tells where each x lies.

        And between which numbers it then is inside.
        """
        first, last = self.first - margin, self.last + margin
        if isinstance(self.scale, float):
            return x, first * self.scale, last * self.scale
        steps = x / self.scale
        return steps if self.shift is None else steps.add_(self.shift), first, last

    def ends(self) -> tuple[Any, Any]:
        """Return the two ends in units of x: numbers, or tensors of shape (channels,)."""
        offset = 0 if self.shift is None else self.shift.flatten()
        scale = self.scale.flatten() if isinstance(self.scale, Tensor) else self.scale
        return (self.first - offset) * scale, (self.last - offset) * scale


class _RoundToGrid(Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        scale: Tensor,
        low: Tensor | None,
        high: Tensor | None,
        zero_point: Tensor,
        rule: _Rule,
    ) -> Tensor:
        ctx.rule, ctx.steps = rule, _Steps.of(scale, zero_point, rule, x.dim())
        y: Tensor = ctx.steps.round(_wide(x)).to(x.dtype)
        ctx.save_for_backward(*((x, y, scale) if any(ctx.needs_input_grad[1:4]) else (x,)))
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (x, *learned), (slope,), rule = ctx.saved_tensors, gradients, ctx.rule
        places = ctx.steps.places(_wide(x), rule.margin)
        inner = _where_inside(slope, *places)
        found: list[Tensor | None] = [None, None, None]
        if learned:
            y, scale = learned
            if ctx.needs_input_grad[1]:
                beside = _where_inside(x, *places) if rule.stretch else x
                found[0] = _dot(slope if rule.stretch else inner, y - beside, rule.axis) * (rule.damping / scale)
            if ctx.needs_input_grad[2] or ctx.needs_input_grad[3]:
                ends = _ends(slope - inner, y, ctx.steps.ends(), rule.axis)
                found[1:] = [rule.damping * end for end in ends]
        return inner if ctx.needs_input_grad[0] else None, *found, None, None


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def _where_inside(tensor: Tensor, places: Tensor, low: float, high: float) -> Tensor:
    """Return ``tensor`` where low < places < high and 0 elsewhere, in one pass."""
    inside: Tensor = torch.ops.aten.hardtanh_backward(tensor.to(places.dtype), places, low, high)
    return inside.to(tensor.dtype)


def _ends(outer: Tensor, y: Tensor, ends: tuple[Any, Any], axis: int | None) -> tuple[Tensor, Tensor]:
    """Sum ``outer`` over what is below and over what is above the grid.

    It is 0 inside.

    There y is one end or the other, so that Σ outer and Σ outer·y tell the two sums apart.
    """
    low, high = ends
    total, weighted = _total(outer, axis), _dot(outer, y, axis)
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
