"""The predicted increase of the loss if one tensor alone were quantized to b bits: ½ · (trace/n) · ‖Q(a) − a‖².

Second-order expansion of the loss with the Hessian replaced by its mean eigenvalue (HAWQ-V2, eq. 11). The
rounding is that of a policy's defaults: activations per tensor, weights per channel, both affine on their
min-max range.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from hessrank.analysis.batches import Batch
from hessrank.analysis.calls import Call
from hessrank.analysis.layers import Layer
from hessrank.analysis.network import Network
from hessrank.analysis.survey import Facts, sample_norms
from hessrank.analysis.weights import channel_axis


def affine_parameters(low: float, high: float, bits: int) -> tuple[float, int]:
    """Return scale and zero point of the unsigned affine grid of ``bits`` bits over [low, high], zero on it.

    Args:
        low: smallest value; a positive one counts as 0.
        high: largest value; a negative one counts as 0.
        bits: 2 to 16; integers run from 0 to 2^bits − 1.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    steps = 2**bits - 1
    scale = (high - low) / steps
    if scale < torch.finfo(torch.float32).tiny:
        return 1.0, 0
    return scale, min(max(round(-low / scale), 0), steps)


def quantize(value: Tensor, low: float, high: float, bits: int) -> Tensor:
    """Return ``value`` rounded to ``bits`` bits, per tensor and affine, over the range [low, high]."""
    scale, zero_point = affine_parameters(low, high, bits)
    return torch.fake_quantize_per_tensor_affine(value, scale, zero_point, 0, 2**bits - 1)


def quantize_weight(weight: Tensor, axis: int, bits: int) -> Tensor:
    """Return ``weight`` rounded to ``bits`` bits, per channel along ``axis`` and affine, over min-max ranges."""
    rows = weight.detach().movedim(axis, 0).flatten(1)
    low, high = rows.amin(1).clamp(max=0), rows.amax(1).clamp(min=0)
    steps = 2**bits - 1
    scale = ((high - low) / steps).float()
    scale = torch.where(scale < torch.finfo(torch.float32).tiny, torch.ones_like(scale), scale)
    zero_point = (-low / scale).round().clamp(0, steps).to(torch.int32)
    return torch.fake_quantize_per_channel_affine(weight.detach(), scale, zero_point, axis, 0, steps)


def activation_errors(network: Network, batch: Batch, facts: Mapping[str, Facts], bits: Sequence[int]) -> Tensor:
    """Return the mean squared rounding error of every layer, bit-width and sample.

    Args:
        network: the network.
        batch: the samples.
        facts: each layer's range and sample axis.
        bits: the bit-widths.

    Returns:
        ‖Q(a) − a‖²/n in activation units squared, float32 on the CPU, shape (layers, bits, batch).
    """
    errors = torch.zeros(len(network.layers), len(bits), len(batch))

    def tap(layer: Layer, call: Call, value: Tensor) -> None:
        fact = facts[layer.name]
        if value.isinf().any():
            value = torch.where(value.isinf(), 0.0, value)  # masked scores: no grid holds them
        for column, width in enumerate(bits):
            error = quantize(value, fact.low, fact.high, width) - value
            norms = sample_norms(error, fact.axis, len(batch)).double()
            errors[layer.execution_index, column] = (norms.square() * len(batch) / value.numel()).cpu()

    network.run(batch, tap)
    return errors


def weight_errors(module: nn.Module, weight: Tensor, bits: Sequence[int]) -> list[float]:
    """Return ‖Q(w) − w‖²/n of a module's weight for each bit-width."""
    axis = channel_axis(module)
    return [
        float((quantize_weight(weight, axis, width) - weight).square().mean(dtype=torch.float64)) for width in bits
    ]
