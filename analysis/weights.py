"""Squared norms of each sample's weight gradient, taken while the backward pass goes by.

Autograd's own weight gradients are summed over the samples of a batch and stay in memory; these are
neither. Where the weight meets the input only once, the norm of a linear layer's gradient G = Σₜ gₜ aₜᵀ comes
without G from two T×T matrices: ‖G‖² = Σₛₜ ⟨gₛ, gₜ⟩⟨aₛ, aₜ⟩ (Goodfellow 2015 for T = 1; Li et al. 2022,
"ghost norm").
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from hessrank.analysis.calls import Call


def own_weight(call: Call) -> nn.Parameter | None:
    """Return the weight that a call multiplies with: of a convolution, a linear layer or an embedding."""
    module = call.module
    if not isinstance(module, _ConvNd | nn.Linear | nn.Embedding) or call.input is None:
        return None
    weight = module._parameters.get("weight")
    return weight if isinstance(weight, nn.Parameter) else None  # a parametrized weight is computed, not stored


def channel_axis(module: nn.Module) -> int:
    """Return which axis of ``module.weight`` counts the output channels."""
    return 1 if isinstance(module, _ConvTransposeNd) else 0


def weight_gradient(module: nn.Module, given: Tensor, slope: Tensor) -> Tensor:
    """Return the gradient of one sample with respect to the module's weight, of the weight's shape.

    Args:
        module: a convolution, a linear layer or an embedding.
        given: that sample's input to the module, with a batch dimension of 1 for convolutions.
        slope: gradient of the loss with respect to the module's output for that input.
    """
    if isinstance(module, _ConvNd):
        return _convolution_gradient(module, given, slope)
    weight = module.weight
    assert isinstance(weight, Tensor)
    if isinstance(module, nn.Embedding):
        rows = slope.reshape(-1, weight.shape[1])
        return torch.zeros_like(weight).index_add_(0, given.reshape(-1), rows.to(weight.dtype))
    return slope.reshape(-1, weight.shape[0]).T @ given.reshape(-1, weight.shape[1])


def _convolution_gradient(module: _ConvNd, given: Tensor, slope: Tensor) -> Tensor:
    padding: Any = module.padding
    if module.padding_mode != "zeros":
        given = F.pad(given, module._reversed_padding_repeated_twice, mode=module.padding_mode)
        padding = (0,) * len(module.stride)
    elif isinstance(padding, str):
        given = F.pad(given, module._reversed_padding_repeated_twice)
        padding = (0,) * len(module.stride)
    gradient: Tensor = torch.ops.aten.convolution_backward(
        slope,
        given,
        module.weight,
        None,
        module.stride,
        padding,
        module.dilation,
        module.transposed,
        module.output_padding,
        module.groups,
        [False, True, False],
    )[1]
    return gradient


def weight_norms(module: nn.Module, given: Tensor, slope: Tensor) -> Tensor:
    """Return the squared norm of each sample's weight gradient, float64, shape (batch,).

    Args:
        module: a convolution, a linear layer or an embedding.
        given: the batch's input to the module, samples along dimension 0.
        slope: gradient with respect to the module's output, samples along dimension 0.
    """
    if isinstance(module, nn.Linear) and _positions(given, 1) ** 2 <= module.weight.numel():
        return _pairwise(slope, given @ given.mT if given.ndim > 2 else given.square().sum(1), slope.ndim > 2)
    singles = (weight_gradient(module, given[i : i + 1], slope[i : i + 1]) for i in range(len(given)))
    return torch.stack([torch.linalg.vector_norm(g).double().square() for g in singles])
