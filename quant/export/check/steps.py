"""Differences measured in quantization steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, fx
from torch.utils._pytree import tree_leaves

from hessrank.quant.export.convert import quantizer_at
from hessrank.quant.export.errors import ExportError
from hessrank.quant.export.integers import along
from hessrank.quant.prepare.model import QuantizedModel

UNQUANTIZED_BITS = 16
"""An output with no grid before it is measured in steps of its range at so many bits."""


@dataclass(frozen=True)
class Difference:
    """How far two tensors are apart.

    Attributes:
        largest: in quantization steps.
        share: of the elements that are more than half a step apart.
    """

    largest: float
    share: float

    @classmethod
    def between(cls, expected: Tensor, found: Tensor, step: Tensor) -> Difference:
        """Compare two tensors, less what float32 itself rounds.

        Of 16 bits, one step is written as up to 1.008.

        Args:
            expected: any shape.
            found: the same shape.
            step: one quantization step, broadcasts with them.

        Raises:
            ExportError: the shapes differ.
        """
        if expected.shape != found.shape:
            shapes = " and ".join("×".join(map(str, tensor.shape)) for tensor in (expected, found))
            raise ExportError(f"the model and onnxruntime give outputs of different shapes: {shapes}")
        if not expected.numel():
            return cls(0.0, 0.0)
        a, b = expected.double(), found.double()
        apart, rounding = (a - b).abs(), torch.finfo(torch.float32).eps * torch.minimum(a.abs(), b.abs())
        steps = torch.where(apart <= rounding, 0.0, apart - rounding) / step.double()
        return cls(float(steps.max()), float((~(steps <= 0.5)).double().mean()))

    def __str__(self) -> str:
        return f"{self.largest:.2g}" + (f" in {self.share:.2g} of the elements" if self.share else "")


def outputs_of(model: QuantizedModel) -> dict[str, fx.Node]:
    """Return the nodes that a model returns, by the names of their layers."""
    layers = {node: layer for layer, node in model.layer_nodes.items()}
    result = next(node for node in model.graph.nodes if node.op == "output")
    inputs = {str(node.target) for node in model.graph.nodes if node.op == "placeholder"}
    found: dict[str, fx.Node] = {}
    for leaf in tree_leaves(result.args[0]):
        if isinstance(leaf, fx.Node):
            name = layers.get(leaf.name, leaf.name)
            found[name if name not in {*found, *inputs} else f"{name}_{len(found)}"] = leaf
    return found


def output_steps(model: QuantizedModel, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return one quantization step of each output.

    That is the step of the nearest grid before it where the output lies on that grid, as it does behind a
    reshuffle; otherwise the step that its range would have with the bits of that grid.
    """
    nodes = outputs_of(model)
    return {name: _output_step(model, nodes[name], tensor) for name, tensor in outputs.items()}


def _output_step(model: QuantizedModel, node: fx.Node, tensor: Tensor) -> Tensor:
    source = _nearest_quantizer(model, node)
    if not tensor.is_floating_point() or not tensor.numel():
        return torch.ones(())
    levels = (1 << UNQUANTIZED_BITS) - 1
    if source is not None:
        step = step_at(model, source, tensor.ndim)
        if source is node:
            return step
        steps = tensor / step
        if not step.ndim and bool((steps - steps.round()).abs().max() < 0.01):  # else channels may have moved
            return step
        quantizer = quantizer_at(model, source)
        assert quantizer is not None
        levels = quantizer.grid().quant_max - quantizer.grid().quant_min
    return ((tensor.max() - tensor.min()) / levels).clamp(min=1e-30)


def step_at(model: QuantizedModel, node: fx.Node, ndim: int) -> Tensor:
    """Return the step of a quantizer's grid.

    Shaped to broadcast with a tensor of ``ndim`` dimensions.
    """
    quantizer = quantizer_at(model, node)
    assert quantizer is not None
    grid = quantizer.grid()
    return along(grid.scale.float(), grid.axis, ndim)


def _nearest_quantizer(model: QuantizedModel, node: fx.Node) -> fx.Node | None:
    waiting, seen = [node], {node}
    for one in waiting:
        if quantizer_at(model, one) is not None:
            return one
        waiting += [other for other in one.all_input_nodes if other not in seen]
        seen.update(one.all_input_nodes)
    return None
