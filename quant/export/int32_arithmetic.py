"""Let a prepared model compute as integer kernels do.

Biases are int32, and so are the sums of products.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hessrank.quant.export.integers import along
from hessrank.quant.export.weight_grids import weight_grids
from hessrank.quant.prepare.bias_steps import input_steps
from hessrank.quant.prepare.model import QuantizedModel
from hessrank.quant.prepare.modules import QuantizedWeight

INT32 = 2**31


@dataclass(frozen=True)
class Units:
    """Units of a module's sums: input step × weight step.

    Attributes:
        module: a convolution or linear layer.
        units: one for each output channel, float32.
        axis: which dimension of its result counts them.
    """

    module: QuantizedWeight
    units: Tensor
    axis: int

    def count(self, result: Tensor) -> Tensor:
        """Return a result of the module as a number of its units, in float64."""
        return result.double() / along(self.units, self.axis, result.ndim)


def sum_units(model: QuantizedModel) -> dict[str, Units]:
    """Return the units of the sums of every layer that reads integers, by path.

    Of convolutions and linear layers.
    """
    grids, _ = weight_grids(model)
    found = {}
    for path, step in input_steps(model).items():
        module = model.get_submodule(path)
        assert isinstance(module, QuantizedWeight)
        grid = grids.get(module.weight_quantizer)
        if grid is None or isinstance(module, nn.Embedding):
            continue
        linear = isinstance(module, nn.Linear)
        channels = module.out_features if linear else module.out_channels
        assert isinstance(channels, int)
        units = (grid.scale * step).repeat(channels // grid.scale.numel())
        found[path] = Units(module, units, -1 if linear else 1)
    return found


def with_int32_biases(model: QuantizedModel) -> QuantizedModel:
    """Return a copy of ``model`` whose biases are whole units.

    Cast to int32 as this processor casts.
    """
    emulated = copy.deepcopy(model)
    for one in sum_units(emulated).values():
        weight, bias = one.module.folded()
        if bias is not None:
            one.module.batch_norm = None
            one.module.weight = nn.Parameter(weight.detach())
            one.module.bias = nn.Parameter((bias.detach() / one.units).round().to(torch.int32) * one.units)
    return emulated


def with_int32_sums(model: QuantizedModel) -> QuantizedModel:
    """Return such a copy in which sums that int32 does not hold wrap around."""
    emulated = with_int32_biases(model)
    for one in sum_units(emulated).values():
        one.module.register_forward_hook(_wrapping(one))
    return emulated


def _wrapping(one: Units) -> Callable[[nn.Module, Any, Tensor], Tensor]:
    def wrap(_module: nn.Module, _args: Any, result: Tensor) -> Tensor:
        count = one.count(result)
        wrapped = (count + INT32).remainder(2 * INT32) - INT32
        return torch.where(count.abs() < INT32, result.double(), wrapped * (result.double() / count)).to(result.dtype)

    return wrap


def overflowing_biases(model: QuantizedModel) -> dict[str, list[int]]:
    """Return the channels whose bias has no int32, by the path of their module."""
    found = {}
    for path, one in sum_units(model).items():
        bias = one.module.folded()[1]
        if bias is not None and (channels := (one.count(bias[None])[0].abs() >= INT32).nonzero().flatten().tolist()):
            found[path] = channels
    return found
