"""Compute what x86 processors without VNNI make of 8-bit products.

Exactly, on any processor.

Their instruction vpmaddubsw multiplies uint8 inputs with int8 weights and adds neighboring products in pairs, in 16
bits: 255·127 + 255·127 becomes 32767. onnxruntime's kernels use it (its documentation: "Quantize ONNX models", why
weights of 7 bits). Pairs are neighbors along the input channels; depthwise convolutions have a kernel of their own,
and weights of an affine scheme are uint8, whose products are added in 32 bits.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from hessrank.quant.export.check.runtime import integer_kernels
from hessrank.quant.export.int32_arithmetic import Units, sum_units
from hessrank.quant.export.integers import IntegerType, integer_type, integers_of
from hessrank.quant.export.onnx_model import OnnxModel
from hessrank.quant.export.weight_grids import weight_grids
from hessrank.quant.prepare.bias_steps import input_grids
from hessrank.quant.prepare.model import QuantizedModel
from hessrank.quant.quantizers import Grid

INT16 = 2**15
LARGEST = 1 << 24
"""Numbers held at a time."""


def with_saturation(model: QuantizedModel, exported: OnnxModel) -> QuantizedModel | None:
    """Return a copy of ``model`` in which pairs of products saturate.

    None where none can.

    Args:
        model: on the CPU and in evaluation mode.
        exported: the file made of it, which says what onnxruntime runs in integers.

    Raises:
        ExportError: onnxruntime does not run the file.
    """
    emulated = copy.deepcopy(model)
    inputs, (stored, _) = input_grids(emulated), weight_grids(emulated)
    at_risk = {}
    for path, one in sum_units(emulated).items():
        module, grid = one.module, stored[one.module.weight_quantizer]
        if integer_type(grid) is not IntegerType.INT8 or not _has_pairs(module):
            continue
        weight = _weight_rows(module, integers_of(module.weight_quantizer, module.folded()[0].detach(), grid))
        if len(pairs := _pairs_at_risk(weight, inputs[path])):
            at_risk[path] = _saturating(one, inputs[path], weight, pairs)
    read = integer_kernels(exported.data) if at_risk else set()
    hooked = [path for path in at_risk if f"{path}.quantized.scale" in read]
    for path in hooked:
        emulated.get_submodule(path).register_forward_hook(at_risk[path])
    return emulated if hooked else None


def _has_pairs(module: nn.Module) -> bool:
    """Return whether a module adds its products in pairs.

    Depthwise convolutions do not.
    """
    if not isinstance(module, _ConvNd):
        return True
    depthwise = module.groups == module.in_channels == module.out_channels
    return not depthwise and not isinstance(module, _ConvTransposeNd) and module.padding_mode == "zeros"


def _weight_rows(module: nn.Module, weight: Tensor) -> Tensor:
    """Return integers as (groups, channels of each, pairs, 2).

    Positions in the window outside, input channels inside.
    """
    groups = module.groups if isinstance(module, _ConvNd) else 1
    rows = weight.movedim(1, -1).flatten(1).float()
    return _paired(rows.reshape(groups, -1, rows.shape[1]))


def _paired(rows: Tensor) -> Tensor:
    rows = F.pad(rows, (0, rows.shape[-1] % 2))
    return rows.reshape(*rows.shape[:-1], -1, 2)


def _unsigned(grid: Grid) -> tuple[int, int]:
    """Return zero point and largest integer as uint8.

    In which onnxruntime holds int8 inputs too.
    """
    shift = -IntegerType.INT8.limits[0] if grid.quant_min < 0 else 0
    return int(grid.zero_point) + shift, grid.quant_max + shift


def _pairs_at_risk(weight: Tensor, grid: Grid) -> Tensor:
    """Return the indices of weights that can leave 16 bits, for 8-bit inputs.

    Each is (group, channel, pair).
    """
    _, largest = _unsigned(grid)
    if largest > IntegerType.UINT8.limits[1]:
        return torch.empty(0, 3, dtype=torch.long)
    ends = torch.stack([weight.clamp(min=0).sum(-1), -weight.clamp(max=0).sum(-1)]) * largest
    return (ends >= INT16).any(0).nonzero()


def _saturating(
    one: Units, grid: Grid, weight: Tensor, pairs: Tensor
) -> Callable[[nn.Module, tuple[Any, ...], Tensor], Tensor]:
    zero_point, _ = _unsigned(grid)

    def saturate(module: nn.Module, args: tuple[Any, ...], result: Tensor) -> Tensor:
        x = (args[0] / grid.scale).round() + zero_point
        result = result.movedim(one.axis, -1).clone()  # samples first, channels last
        at: tuple[Any, ...] = (...,)
        if isinstance(module, nn.Linear):
            windows = x.reshape(1, 1, -1, x.shape[-1])
        else:
            assert isinstance(module, _ConvNd)
            every, windows = _windows(module, x, zero_point)
            at = (slice(None), slice(None, None, every))
        result[at] += (_excess(windows, weight, pairs) * one.units).reshape(result[at].shape)
        return result.movedim(-1, one.axis)

    return saturate


def _windows(conv: _ConvNd, x: Tensor, zero_point: int) -> tuple[int, Tensor]:
    """Return what a kernel sees, as (samples, groups, positions, weights).

    Of a large result every so many rows.
    """
    x = F.pad(x, conv._reversed_padding_repeated_twice, value=zero_point)
    for dim, (size, stride, dilation) in enumerate(zip(conv.kernel_size, conv.stride, conv.dilation, strict=True)):
        x = x.unfold(2 + dim, dilation * (size - 1) + 1, stride)[..., ::dilation]
    every = -(-x.numel() // LARGEST)
    x = x[:, :, ::every]
    x = x.reshape(len(x), conv.groups, -1, *x.shape[2:]).movedim(2, -1)
    kept = len(conv.kernel_size)
    return every, x.flatten(2 + kept).flatten(2, 1 + kept)


def _excess(windows: Tensor, weight: Tensor, pairs: Tensor) -> Tensor:
    """Return what saturation adds to each sum, in units of the sums.

    Shape (samples, positions, channels).
    """
    inputs = _paired(windows).permute(1, 3, 0, 2, 4)  # group, pair, sample, position, 2
    groups, channels = weight.shape[:2]
    found = torch.zeros(groups, channels, *inputs.shape[2:4])
    for part in torch.split(pairs, max(1, LARGEST // inputs[0, 0].numel())):
        group, channel, pair = part.T
        sums = (inputs[group, pair] * weight[group, channel, pair][:, None, None]).sum(-1)
        found.index_put_((group, channel), sums.clamp(-INT16, INT16 - 1) - sums, accumulate=True)
    return found.flatten(0, 1).permute(1, 2, 0)
