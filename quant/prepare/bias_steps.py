"""Bound how fine the step of a weight may be.

So that the bias beside it fits into 32 bits.

Integer kernels add a bias as an int32 in units of input step × weight step (Jacob et al. 2018, section 2.4). A
channel of tiny weights, one that pruning or a batch norm's γ near 0 has switched off, has a tiny step, and its bias
then needs more than 32 bits: runtimes clip it or let it wrap around. So no step is finer than

    |bias| / (input step · 2^30)

which leaves as much again for the products. It costs nothing: rounding a weight to it moves the result by
at most |bias| · x/2^31, with x the input's integer, which at 8 bits is what float32 itself loses of the bias.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from hessrank.errors import ModelError
from hessrank.quant.prepare.model import QuantizedModel
from hessrank.quant.prepare.modules import QuantizedWeight
from hessrank.quant.quantizers import Grid, Quantizer

LARGEST_BIAS = 2**30
"""In units of input step × weight step: half of what int32 holds, the other half is for the products."""


@dataclass(frozen=True)
class LeastSteps:
    """The finest steps that a weight's quantizer may have.

    Attributes:
        layer: path of the first module that uses the quantizer.
        steps: in units of the weight; float32 of the shape of the quantizer's scale, 0 where any step will do.
        empty: channels whose weights are all 0, likewise: their step serves the bias alone.
    """

    layer: str
    steps: Tensor
    empty: Tensor

    def raised(self, scale: Tensor, *, powers_of_two: bool) -> Tensor:
        """Return ``scale`` with the steps that are too fine raised.

        To a power of two if need be.
        """
        least = self.steps
        if powers_of_two:
            least = torch.where(least > 0, torch.exp2(least.log2().ceil()), least)
        return torch.where((scale < least) | (self.empty & (least > 0)), least, scale)


def raise_weight_steps(model: QuantizedModel) -> None:
    """Raise the steps of weights that are too fine for the biases beside them.

    The weights are calibrated; zero points stay.

    Methods that stretch weights to fill the grid are left out: a coarser grid would change them.

    Args:
        model: calibrated.

    Raises:
        ModelError: no step will do; the message names layer and channel.
    """
    for quantizer, least in least_weight_steps(model).items():
        if not quantizer.fills_grid:
            quantizer.scale.copy_(least.raised(quantizer.scale, powers_of_two=quantizer.scheme.pot_scale))


def least_weight_steps(model: QuantizedModel) -> dict[Quantizer, LeastSteps]:
    """Return the finest steps that each weight's quantizer may have.

    Where its input lies on a grid.

    Args:
        model: calibrated; its biases are taken as evaluation uses them, batch norms folded in.

    Raises:
        ModelError: no step will do; the message names layer and channel.
    """
    inputs = input_steps(model)
    found: dict[Quantizer, LeastSteps] = {}
    for path, module in model.quantized_weights():
        quantizer = module.weight_quantizer
        if path not in inputs:
            continue
        new = _least_steps(path, module, inputs[path])
        old = found.get(quantizer, new)
        found[quantizer] = LeastSteps(old.layer, torch.maximum(old.steps, new.steps), old.empty & new.empty)
    return found


def _least_steps(path: str, module: QuantizedWeight, input_step: float) -> LeastSteps:
    scale, axis = module.weight_quantizer.scale, module.weight_quantizer.axis
    weight, bias = (None if part is None else part.detach().float() for part in module.folded())
    assert weight is not None
    rows = weight.reshape(1, -1) if axis is None else weight.movedim(axis, 0).flatten(1)
    empty = (rows == 0).all(1)
    if bias is None:
        return LeastSteps(path, torch.zeros_like(scale), empty)
    least = bias.abs().double() / (input_step * LARGEST_BIAS)
    if not bool((least < torch.finfo(scale.dtype).max).all()):  # NaN included
        channel = int((~(least < torch.finfo(scale.dtype).max)).int().argmax())
        raise ModelError(
            f"layer {path!r}, channel {channel}: its bias {bias[channel]:.3g} has no int32 in units of input step "
            f"({input_step:.3g}) × weight step: leave this layer out of the policy, or look at its bias"
        )
    return LeastSteps(path, least.reshape(-1, scale.numel() if axis is not None else 1).amax(0).to(scale), empty)


def input_steps(model: QuantizedModel) -> dict[str, float]:
    """Return the step of each quantized weight's input, by the module's path.

    Of the finest grid that it lies on.
    """
    return {path: float(grid.scale.min()) for path, grid in input_grids(model).items()}


def input_grids(model: QuantizedModel) -> dict[str, Grid]:
    """Return the finest grid of each quantized weight's inputs, by path.

    Modules whose input lies on no grid are left out.
    """
    grids: dict[str, Grid] = {}
    modules = dict(model.named_modules())
    paths = {id(module): path for path, module in model.quantized_weights()}
    for node in model.graph.nodes:
        path = paths.get(id(modules.get(str(node.target)))) if node.op == "call_module" else None
        if path is None:
            continue
        found = [quantizer.grid() for quantizer in _quantizers_before(node, modules)]
        found += [grids[path]] if path in grids else []
        if found:
            grids[path] = min(found, key=lambda grid: float(grid.scale.min()))
    return grids


def _quantizers_before(node: fx.Node, modules: Mapping[str, torch.nn.Module]) -> list[Quantizer]:
    """Return the quantizers that are met first on every way back from a node."""
    waiting, found = list(node.all_input_nodes), []
    for one in waiting:
        module = modules.get(str(one.target)) if one.op == "call_module" else None
        if isinstance(module, Quantizer) and module.has_range:
            found.append(module)
        else:
            waiting += [other for other in one.all_input_nodes if other not in waiting]
    return found
