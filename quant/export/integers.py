"""Which integer type of ONNX holds a grid, and the integers of a weight."""

from __future__ import annotations

from enum import IntEnum

import torch
from torch import Tensor

from hessrank.quant.export.errors import ExportError
from hessrank.quant.quantizers import Grid, Quantizer


class IntegerType(IntEnum):
    """Integer types of opset 21; the narrowest first.

    Numbered as in ``onnx.TensorProto.DataType``.
    """

    UINT4 = 21
    INT4 = 22
    UINT8 = 2
    INT8 = 3
    UINT16 = 4
    INT16 = 5

    @property
    def bits(self) -> int:
        """Width: 4, 8 or 16."""
        return int(self.name.lstrip("UINT"))

    @property
    def limits(self) -> tuple[int, int]:
        """Smallest and largest integer."""
        if self.name.startswith("U"):
            return 0, (1 << self.bits) - 1
        return -(1 << (self.bits - 1)), (1 << (self.bits - 1)) - 1


def integer_type(grid: Grid, *, least_bits: int = 4) -> IntegerType:
    """Return the narrowest type that holds a grid and its zero points.

    int4 or uint4 for 4 bits and fewer.

    Args:
        grid: what it should hold.
        least_bits: leave narrower types out.

    Raises:
        ExportError: a zero point lies beyond 16 bits.
    """
    low = min(grid.quant_min, int(grid.zero_point.min()))
    high = max(grid.quant_max, int(grid.zero_point.max()))
    for kind in IntegerType:
        if kind.bits >= least_bits and kind.limits[0] <= low and high <= kind.limits[1]:
            return kind
    raise ExportError(f"no integer type of ONNX holds {low} to {high}: a zero point is too far off; calibrate again")


def needs_clip(grid: Grid, kind: IntegerType) -> bool:
    """Return whether a grid is narrower than its integer type.

    The type's own saturation then comes too late.
    """
    return kind.limits != (grid.quant_min, grid.quant_max)


def along(vector: Tensor, axis: int | None, ndim: int) -> Tensor:
    """Shape a scalar or a vector to broadcast along ``axis``.

    Of a tensor with ``ndim`` dimensions.
    """
    if axis is None or vector.ndim == 0:
        return vector.reshape(())
    return vector.reshape([-1 if d == axis % ndim else 1 for d in range(ndim)])


def integers_of(quantizer: Quantizer, weight: Tensor, stored: Grid) -> Tensor:
    """Return the integers of what evaluation makes of a weight.

    int32, of the shape of ``weight``.

    They are read off the quantized weight itself, so that no rounding is done a second time where the stored grid
    is the quantizer's own.

    Args:
        quantizer: the weight's.
        weight: in float.
        stored: the grid to store it on, no finer than the quantizer's own.

    Raises:
        ExportError: the quantizer's result does not lie on its grid.
    """
    grid = quantizer.grid()
    scale = along(grid.scale, grid.axis, weight.ndim).double()
    zero_point = along(grid.zero_point, grid.axis, weight.ndim).double()
    with torch.no_grad():
        steps = quantizer(weight).double() / scale
    off = float((steps - steps.round()).abs().max()) if steps.numel() else 0.0
    integers = (steps.round() * scale / along(stored.scale, grid.axis, weight.ndim)).round() + zero_point
    if not off < 0.01 or integers.min() < grid.quant_min or integers.max() > grid.quant_max:  # NaN included
        raise ExportError(f"its quantizer ({quantizer.method}) gives values that are not on its own grid")
    result: Tensor = integers.to(torch.int32)
    return result
