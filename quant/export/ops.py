"""Define two operators that live during an export.

torch.export takes them whole, and each becomes the nodes below.

    quantize_dequantize   Clip → QuantizeLinear → DequantizeLinear
    dequantize            DequantizeLinear of integers that are stored

Clip is in float, and only there where the grid is narrower than the integer type. torch's own fake-quantize
operators only translate at full 8-bit ranges.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hessrank.quant.export.integers import along


@torch.library.custom_op("hessrank::quantize_dequantize", mutates_args=())
def quantize_dequantize(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    low: Tensor,
    high: Tensor,
    kind: int,
    axis: int,
    clips: bool,
    node: str,
) -> Tensor:
    """Put an activation on its grid.

    Args:
        x: any shape.
        scale: float32, shape () or (channels,).
        zero_point: int32, the shape of ``scale``.
        low: smallest value of the grid, of a shape that broadcasts with ``x``.
        high: largest value.
        kind: the :class:`~hessrank.quant.export.integers.IntegerType`.
        axis: which dimension counts the channels; −1 for one scale.
        clips: whether the grid is narrower than the type.
        node: the torch.fx node that is exported, to find it again.
    """
    step = along(scale, None if axis < 0 else axis, x.ndim)
    y: Tensor = torch.round(x.clamp(low, high) / step) * step
    return y


@quantize_dequantize.register_fake
def _(x: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("hessrank::dequantize", mutates_args=())
def dequantize(integers: Tensor, scale: Tensor, zero_point: Tensor, kind: int, axis: int) -> Tensor:
    """Return ``(integers − zero_point) · scale`` in float32.

    Args:
        integers: int32.
        scale: float32, shape () or (channels,).
        zero_point: int32, the shape of ``scale``.
        kind: the :class:`~hessrank.quant.export.integers.IntegerType` to store the integers in.
        axis: which dimension counts the channels; −1 for one scale.
    """
    where = None if axis < 0 else axis
    return (integers - along(zero_point, where, integers.ndim)) * along(scale, where, integers.ndim)


@dequantize.register_fake
def _(integers: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(integers, dtype=torch.float32)


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Return what the operators become in ONNX.

    As ``custom_translation_table`` of ``torch.onnx.export`` takes it.

    A Cast stands before every integer that is stored: torch has no 4-bit tensors.
    """
    from onnxscript import opset21  # noqa: PLC0415 - only an export needs it

    op: Any = opset21

    # An argument with a type is an attribute, one that may be anything is a tensor.
    def to_qdq(
        x: Any, scale: Any, zero_point: Any, low: Any, high: Any, kind: int, axis: int, clips: bool, node: str
    ) -> Any:
        if clips:  # Clip takes one bound for all channels
            x = op.Clip(x, low, high) if axis < 0 else op.Min(op.Max(x, low), high)
        zero = op.Cast(zero_point, to=kind)
        channels = {} if axis < 0 else {"axis": axis}
        return op.DequantizeLinear(op.QuantizeLinear(x, scale, zero, **channels), scale, zero, **channels)

    def to_dequantize(integers: Any, scale: Any, zero_point: Any, kind: int, axis: int) -> Any:
        channels = {} if axis < 0 else {"axis": axis}
        return op.DequantizeLinear(op.Cast(integers, to=kind), scale, op.Cast(zero_point, to=kind), **channels)

    return {
        torch.ops.hessrank.quantize_dequantize.default: to_qdq,
        torch.ops.hessrank.dequantize.default: to_dequantize,
    }
