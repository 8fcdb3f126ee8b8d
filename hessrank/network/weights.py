"""Computes squared norms of each sample's weight gradient in a backward pass.

Autograd's own weight gradients are summed over the samples of a batch and stay in memory; these are
neither. Where the weight meets the input only once, the norm of a linear layer's gradient G = Σₜ gₜ aₜᵀ comes
without G from two T×T matrices: ‖G‖² = Σₛₜ ⟨gₛ, gₜ⟩⟨aₛ, aₜ⟩ (Goodfellow 2015 for T = 1; Li et al. 2022,
"ghost norm").
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils.parametrize import ParametrizationList
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from hessrank.data.batch import Batch
from hessrank.network.layer_names import Layer
from hessrank.network.network import Network
from hessrank.network.walks.call import Call


@dataclass(frozen=True, eq=False)
class Weight:
    """A weight whose trace is wanted.

    Attributes:
        parameter: the tensor itself, which several modules and several calls may share.
        calls: names of the layers whose calls multiply with it, in the order of execution.
    """

    parameter: nn.Parameter
    calls: tuple[str, ...]


def module_of(network: Network, weight: Weight) -> nn.Module:
    """Return the module that multiplies with ``weight`` first."""
    path = next(layer.module for layer in network.layers if layer.name == weight.calls[0])
    return network.model.get_submodule(str(path))


def own_weight(call: Call) -> nn.Parameter | None:
    """Return the weight that a call multiplies with; None without one.

    It is that of a convolution, a linear layer or an embedding.
    """
    module = call.module
    if module is None or call.input is None:
        return None
    if not (isinstance(module, _ConvNd | nn.Embedding) or _is_linear(module)):
        return None
    if isinstance(module, _ConvNd) and call.input.ndim != module.weight.ndim:
        return None  # a single sample without a batch dimension
    weight = module._parameters.get("weight")
    return weight if isinstance(weight, nn.Parameter) else None  # a parametrized weight is computed, not stored


_COMPUTED: tuple[tuple[type, str, str], ...] = (
    (WeightNorm, "weight_norm", "torch.nn.utils.remove_weight_norm(module)"),
    (SpectralNorm, "spectral_norm", "torch.nn.utils.remove_spectral_norm(module)"),
    (BasePruningMethod, "pruning", "torch.nn.utils.prune.remove(module, 'weight')"),
)
"""Hooks that compute a module's weight before every call, what people call them, and what takes them off."""


def computed_weights(network: Network, weights: Sequence[Weight]) -> dict[str, str]:
    """Return why weights are computed ones, and what makes them plain.

    The paths are those of :func:`without_trace`.
    """
    found = {path: computed_by(network.model.get_submodule(path)) for path in without_trace(network, weights)}
    return {path: why for path, why in found.items() if why}


def computed_by(module: nn.Module) -> str:
    """Return what computes a module's weight, and the remedy; empty if nothing does."""
    if isinstance(module, ParametrizationList):
        remedy = "torch.nn.utils.parametrize.remove_parametrizations makes it a plain weight"
        return f"computed by a parametrization: {remedy}"
    if not isinstance(module, _ConvNd | nn.Linear | nn.Embedding):
        return ""
    hooks = module._forward_pre_hooks.values()
    found = ((name, call) for kind, name, call in _COMPUTED if any(isinstance(hook, kind) for hook in hooks))
    return next((f"computed by {name} before every call: {call} makes it a plain weight" for name, call in found), "")


def channel_axis(module: nn.Module) -> int:
    """Return which axis of ``module.weight`` counts the output channels.

    A transposed convolution's weight is inputs × outputs/groups × kernel: with groups, an entry of axis 1 stands for
    one output channel of every group, which share a scale then. Where every group has a single input (depthwise),
    axis 0 counts the groups, and is taken if there are more of them.
    """
    if isinstance(module, _ConvTransposeNd):
        return 0 if module.in_channels == module.groups > module.out_channels // module.groups else 1
    return 1 if _is_transposed_linear(module) else 0


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or _is_transposed_linear(module)


def _is_transposed_linear(module: nn.Module) -> bool:
    """Return whether this is GPT-2's linear layer of transformers.

    Its weight is inputs × outputs.
    """
    kind = type(module)
    return kind.__name__ == "Conv1D" and kind.__module__.startswith("transformers.")


def weight_gradient(module: nn.Module, inputs: Tensor, slope: Tensor) -> Tensor:
    """Return the gradient of one sample by the module's weight, in its shape.

    Args:
        module: a convolution, a linear layer or an embedding.
        inputs: that sample's input to the module, with a batch dimension.
        slope: gradient of the loss with respect to the module's output for that input.
    """
    if isinstance(module, _ConvNd):
        return _compute_convolution_gradient(module, inputs, slope)
    weight = module.weight
    assert isinstance(weight, Tensor)
    if isinstance(module, nn.Embedding):
        rows = slope.reshape(-1, weight.shape[1])
        gradient = torch.zeros_like(weight).index_add_(0, inputs.reshape(-1), rows.to(weight.dtype))
        if module.padding_idx is not None:
            gradient[module.padding_idx] = 0  # never trained, as autograd has it
        return gradient
    rows, slopes = inputs.reshape(-1, inputs.shape[-1]), slope.reshape(-1, slope.shape[-1])
    return rows.T @ slopes if _is_transposed_linear(module) else slopes.T @ rows


def _compute_convolution_gradient(module: _ConvNd, inputs: Tensor, slope: Tensor) -> Tensor:
    padding: Any = module.padding
    if module.padding_mode != "zeros":
        inputs = F.pad(inputs, module._reversed_padding_repeated_twice, mode=module.padding_mode)
        padding = (0,) * len(module.stride)
    elif isinstance(padding, str):
        inputs = F.pad(inputs, module._reversed_padding_repeated_twice)
        padding = (0,) * len(module.stride)
    gradient: Tensor = torch.ops.aten.convolution_backward(
        slope,
        inputs,
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


def weight_gradients(module: nn.Module, inputs: Tensor, slope: Tensor, batch_size: int) -> Iterator[Tensor]:
    """Yield each sample's weight gradient; arguments as for :func:`weight_norms`."""
    pairs = zip(inputs.tensor_split(batch_size), slope.tensor_split(batch_size), strict=True)
    return (weight_gradient(module, a, g) for a, g in pairs)


def weight_norms(module: nn.Module, inputs: Tensor, slope: Tensor, batch_size: int) -> Tensor:
    """Return the squared norm of each sample's weight gradient, shape (batch_size,).

    Args:
        module: a convolution, a linear layer or an embedding.
        inputs: the batch's input to the module, samples along dimension 0.
        slope: gradient with respect to the module's output, samples along dimension 0.
        batch_size: number of samples; each has the same number of entries along dimension 0.
    """
    if _has_few_positions(module, inputs, batch_size):
        rows, slopes = (t.reshape(batch_size, -1, t.shape[-1]) for t in (inputs, slope))
        return ((rows @ rows.mT) * (slopes @ slopes.mT)).sum((1, 2))
    gradients = weight_gradients(module, inputs, slope, batch_size)
    return torch.stack([torch.linalg.vector_norm(g) for g in gradients]).square()


def weight_products(module: nn.Module, inputs: Tensor, one: Tensor, other: Tensor, batch_size: int) -> Tensor:
    """Return the inner product of each sample's two weight gradients.

    Its shape is (batch_size,); it may be negative.

    Args:
        module: as for :func:`weight_norms`.
        inputs: as for :func:`weight_norms`.
        one: gradient with respect to the module's output, samples along dimension 0.
        other: another one.
        batch_size: number of samples.
    """
    if _has_few_positions(module, inputs, batch_size):
        rows, ones, others = (t.reshape(batch_size, -1, t.shape[-1]) for t in (inputs, one, other))
        return ((rows @ rows.mT) * (ones @ others.mT)).sum((1, 2), dtype=torch.float64)
    pairs = zip(
        weight_gradients(module, inputs, one, batch_size),
        weight_gradients(module, inputs, other, batch_size),
        strict=True,
    )
    return torch.stack([(a * b).sum(dtype=torch.float64) for a, b in pairs])


def _has_few_positions(module: nn.Module, inputs: Tensor, batch_size: int) -> bool:
    """Return whether T×T matrices are smaller than the gradient.

    A linear layer's weight meets a sample T times.
    """
    positions = inputs.numel() // inputs.shape[-1] // batch_size if _is_linear(module) else 0
    weight = module.weight
    assert isinstance(weight, Tensor)
    return 0 < positions**2 <= weight.numel()


def find_weights(network: Network, batch: Batch) -> list[Weight]:
    """Return the weights that calls multiply with, in the order of first use.

    Each is there once.

    Args:
        network: the network.
        batch: a batch to run it on.
    """
    calls: dict[nn.Parameter, list[str]] = {}

    def tap(layer: Layer, call: Call, value: Tensor) -> None:
        weight = own_weight(call)
        if weight is not None:
            calls.setdefault(weight, []).append(layer.name)

    network.run(batch, tap)
    return [Weight(weight, tuple(names)) for weight, names in calls.items()]


def without_trace(network: Network, weights: Sequence[Weight]) -> list[str]:
    """Return the modules that run and have a weight matrix without a trace.

    They are paths; none of ``weights`` is their matrix.
    """
    known = {id(weight.parameter) for weight in weights}
    return [
        path
        for path, module in network.model.named_modules()
        if path
        and any(p.ndim > 1 and id(p) not in known for p in module.parameters(recurse=False))
        and module in network.called
    ]
