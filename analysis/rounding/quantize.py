"""Rounds tensors to b bits, and measures the error e = Q(a) − a.

The rounding is that of a policy's defaults: activations per tensor, weights per channel, both affine on their
min-max range. With ‖e‖²/n alone the predicted increase of the loss is ½ · trace · ‖e‖²/n: a second-order
expansion with the Hessian replaced by its mean eigenvalue (HAWQ-V2, eq. 11). :mod:`quadratic_form` predicts from
e itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from hessrank.affine_grid import affine_grid, affine_parameters
from hessrank.data.batch import Batch
from hessrank.network.layer_facts import LayerFacts, sample_norms
from hessrank.network.layer_names import Layer
from hessrank.network.network import Network
from hessrank.network.padding import counted_elements, real_positions
from hessrank.network.walks.call import Call
from hessrank.network.weights import channel_axis


def quantize(value: Tensor, low: float, high: float, bits: int) -> Tensor:
    """Return ``value`` rounded to ``bits`` bits, per tensor, over [low, high].

    To the bit what ``torch.fake_quantize_per_tensor_affine`` returns, which also makes a mask for its backward
    pass and takes several times as long.
    """
    scale, zero_point = affine_parameters(low, high, bits)
    single = np.float32(scale)
    rounded = (value * float(1 / single)).round_().clamp_(-zero_point, 2**bits - 1 - zero_point)
    return rounded.float().mul_(float(single)).to(value.dtype)


def quantize_weight(weight: Tensor, axis: int, bits: int) -> Tensor:
    """Return ``weight`` rounded to ``bits`` bits, per channel along ``axis``.

    The grid is affine over each channel's smallest and largest value.

    To the bit what ``torch.fake_quantize_per_channel_affine`` returns.
    """
    return quantize_weight_widths(weight, axis, [bits])[0]


def quantize_weight_widths(weight: Tensor, axis: int, bits: Sequence[int]) -> Tensor:
    """Return ``weight`` rounded to several bit-widths, shape (bits, *weight).

    Each is what :func:`quantize_weight` returns.
    """
    weight = weight.detach()
    others = [d for d in range(weight.ndim) if d != axis]
    low, high = weight.amin(others, keepdim=True).clamp(max=0), weight.amax(others, keepdim=True).clamp(min=0)
    steps = torch.tensor([2.0**b - 1 for b in bits]).to(weight).reshape(-1, *[1] * weight.ndim)
    scale, zero_point = affine_grid(low, high, steps)
    rounded = (weight * (1 / scale)).round_()
    return torch.clamp(rounded, -zero_point, steps - zero_point, out=rounded).mul_(scale)


def rounding_error(value: Tensor, low: float, high: float, bits: int) -> Tensor:
    """Return Q(a) − a of an activation on the ``bits``-bit grid over [low, high]."""
    return quantize(value, low, high, bits).sub_(value)


def measure_activation_errors(
    network: Network, batch: Batch, facts: Mapping[str, LayerFacts], bits: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Return every layer's rounding error, and the share that rounds to 0.

    Args:
        network: the network.
        batch: the samples.
        facts: each layer's range and sample axis.
        bits: the bit-widths.

    Returns:
        ‖Q(a) − a‖²/n in activation units squared, float32 on the CPU, shape (layers, bits, batch), and the share of
        the elements other than 0 that round to 0, of the same shape. Padding and masked scores do not count, neither
        in e nor in n.
    """
    errors = torch.zeros(len(network.layers), len(bits), len(batch))
    wiped = torch.zeros_like(errors)
    positions = real_positions(batch)

    def tap(layer: Layer, call: Call, value: Tensor) -> None:
        fact = facts[layer.name]
        counted = counted_elements(value, fact.axis, positions)
        numel: float | Tensor = value.numel() / len(batch)
        if counted is not None:
            numel = fact.axis.rows(counted.expand_as(value), len(batch)).sum(1).clamp(min=1)
            value = torch.where(counted, value, 0.0)  # which is on every grid
        for column, width in enumerate(bits):
            error = rounding_error(value, fact.low, fact.high, width)
            norms = sample_norms(error, fact.axis, len(batch)).double()
            errors[layer.execution_index, column] = (norms.square() / numel).cpu()
        rows = fact.axis.rows(value, len(batch))
        steps = [affine_parameters(fact.low, fact.high, width)[0] for width in bits]
        wiped[layer.execution_index] = measure_wiped_share(rows, steps)

    network.run(batch, tap)
    return errors, wiped


def measure_wiped_share(rows: Tensor, steps: Sequence[float]) -> Tensor:
    """Return the share of the nonzero elements that round to 0.

    They are those below half a step.

    Args:
        rows: rows × elements.
        steps: the steps of some grids, the longest first; after one that rounds less than a quarter of every row to 0
            the result is not computed: it is 0.

    Returns:
        shape (steps, rows).
    """
    sizes, found = rows.abs(), torch.zeros(len(steps), len(rows))
    count = (sizes > 0).sum(1)
    zeros = sizes.shape[1] - count
    for place, step in enumerate(steps):
        found[place] = (((sizes < step / 2).sum(1) - zeros).clamp(min=0) / count.clamp(min=1)).cpu()
        if bool((found[place] < 0.25).all()):
            break
    return found


def measure_weight_errors(module: nn.Module, weight: Tensor, bits: Sequence[int]) -> tuple[list[float], list[float]]:
    """Return a weight's rounding error, and the share that rounds to 0.

    It does for a weight what :func:`measure_activation_errors` does for activations.

    Args:
        module: the module that multiplies with it.
        weight: the weight.
        bits: the bit-widths.

    Returns:
        ‖Q(w) − w‖²/n for each bit-width, and the share of the elements other than 0 that round to 0.
    """
    axis, weight = channel_axis(module), weight.detach()
    errors, wiped, is_there = [], [], weight != 0
    for width in bits:  # one at a time: a weight may be large
        rounded = quantize_weight(weight, axis, width)
        errors.append(float((rounded - weight).square().mean(dtype=torch.float64)))
        wiped.append(int(((rounded == 0) & is_there).sum()) / max(1, int(is_there.sum())))
    return errors, wiped
