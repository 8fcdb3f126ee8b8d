"""Modules whose weight is quantized, with the batch norm behind folded in.

Convolutions, linear layers and embeddings.

Folding, as torch's quantization-aware training does it (Krishnamoorthi 2018, section 3.2.2; Jacob et al. 2018,
section 3.2): with γ, β, μ, σ² the batch norm's and ε its floor, f = γ/√(σ² + ε) per channel, Q the quantizer,

    in training    y = BN( conv(x, Q(w·f)) / f + b )        batch statistics of what is normalized
    in evaluation  y = conv(x, Q(w·f)) + β + (b − μ)·f      what a device computes

The two are equal when the batch norm uses its running statistics (it is frozen); a frozen one is computed the
second way. In training f = 0 counts as 1: the batch norm's γ = 0 takes that channel out by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

from hessrank.quant.quantizers import Quantizer


class QuantizedWeight(nn.Module):
    """What all of them have in common: mix in before the module's own class.

    Attributes:
        weight: the float weight, which is trained.
        weight_quantizer: what it goes through.
        batch_norm: the batch norm that is folded in, or None.
    """

    weight: Tensor
    bias: Any
    weight_quantizer: Quantizer
    batch_norm: nn.modules.batchnorm._BatchNorm | None

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Compute what the module computes, with its weight on the grid."""
        if self.batch_norm is None:
            with self._computing_with(weight=self.weight_quantizer(self.weight)):
                return self._compute(*args, **kwargs)
        if not self.batch_norm.training:
            weight, bias = self.folded()
            with self._computing_with(weight=self.weight_quantizer(weight), bias=bias):
                return self._compute(*args, **kwargs)
        factor = self._factor()
        factor = torch.where(factor == 0, 1, factor)
        with self._computing_with(weight=self.weight_quantizer(self._scaled(factor)), bias=None):
            y = self._compute(*args, **kwargs)
        y = y / _along(factor, 1, y.ndim)
        normalized: Tensor = self.batch_norm(y if self.bias is None else y + _along(self.bias, 1, y.ndim))
        return normalized

    def _compute(self, *args: Any, **kwargs: Any) -> Tensor:
        y: Tensor = super().forward(*args, **kwargs)
        return y

    def folded(self) -> tuple[Tensor, Tensor | None]:
        """Return weight and bias as evaluation uses them, batch norm folded in.

        The weight is not yet quantized.
        """
        norm = self.batch_norm
        if norm is None:
            return self.weight, self.bias
        assert norm.running_mean is not None
        factor, mean = self._factor(), norm.running_mean
        bias = (-mean if self.bias is None else self.bias - mean) * factor
        return self._scaled(factor), bias if norm.bias is None else bias + norm.bias

    def observe_weight(self) -> None:
        """Show the weight, as evaluation uses it, to the quantizer's observer."""
        self.weight_quantizer.observer.observe(self.folded()[0].detach())

    def _factor(self) -> Tensor:
        """Return γ/√(σ² + ε) by channel."""
        norm = self.batch_norm
        assert norm is not None
        assert norm.running_var is not None
        deviation = torch.rsqrt(norm.running_var + norm.eps)
        return deviation if norm.weight is None else norm.weight * deviation

    def _scaled(self, factor: Tensor) -> Tensor:
        """Return the weight times a factor for each output channel.

        The factor's shape is (output channels,).
        """
        weight = self.weight
        if not isinstance(self, _ConvTransposeNd):
            return weight * _along(factor, 0, weight.ndim)
        by_group = weight.reshape(self.groups, -1, *weight.shape[1:])  # groups × in/groups × out/groups × kernel
        factor = factor.reshape(self.groups, 1, -1, *[1] * (weight.ndim - 2))
        return (by_group * factor).reshape(weight.shape)

    @contextmanager
    def _computing_with(self, **tensors: Tensor | None) -> Iterator[None]:
        """Let the module's own forward see other tensors.

        An instance attribute comes before a parameter.
        """
        self.__dict__.update(tensors)
        try:
            yield
        finally:
            for name in tensors:
                del self.__dict__[name]


def _along(vector: Tensor, axis: int, ndim: int) -> Tensor:
    return vector.reshape([-1 if d == axis else 1 for d in range(ndim)])


class QuantizedConv1d(QuantizedWeight, nn.Conv1d):
    """A Conv1d with a quantized weight."""


class QuantizedConv2d(QuantizedWeight, nn.Conv2d):
    """A Conv2d with a quantized weight."""


class QuantizedConv3d(QuantizedWeight, nn.Conv3d):
    """A Conv3d with a quantized weight."""


class QuantizedConvTranspose1d(QuantizedWeight, nn.ConvTranspose1d):
    """A ConvTranspose1d with a quantized weight."""


class QuantizedConvTranspose2d(QuantizedWeight, nn.ConvTranspose2d):
    """A ConvTranspose2d with a quantized weight."""


class QuantizedConvTranspose3d(QuantizedWeight, nn.ConvTranspose3d):
    """A ConvTranspose3d with a quantized weight."""


class QuantizedLinear(QuantizedWeight, nn.Linear):
    """A Linear with a quantized weight."""


class QuantizedEmbedding(QuantizedWeight, nn.Embedding):
    """An Embedding with a quantized weight."""

    bias = None


QUANTIZED: dict[type[nn.Module], type[QuantizedWeight]] = {
    nn.Conv1d: QuantizedConv1d,
    nn.Conv2d: QuantizedConv2d,
    nn.Conv3d: QuantizedConv3d,
    nn.ConvTranspose1d: QuantizedConvTranspose1d,
    nn.ConvTranspose2d: QuantizedConvTranspose2d,
    nn.ConvTranspose3d: QuantizedConvTranspose3d,
    nn.Linear: QuantizedLinear,
    nn.Embedding: QuantizedEmbedding,
}
"""What can be quantized, and what it becomes."""


def quantize_module(
    module: nn.Module, quantizer: Quantizer, batch_norm: nn.modules.batchnorm._BatchNorm | None = None
) -> QuantizedWeight:
    """Make a module one with a quantized weight, in place.

    Parameters, hooks and state-dict keys stay.

    Args:
        module: of a class in :data:`QUANTIZED`.
        quantizer: for its weight.
        batch_norm: what to fold in.
    """
    module.__class__ = QUANTIZED[type(module)]
    assert isinstance(module, QuantizedWeight)
    module.weight_quantizer = quantizer
    module.batch_norm = batch_norm
    return module
