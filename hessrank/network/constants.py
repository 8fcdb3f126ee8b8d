"""Finds what layers read beside other layers: weights, biases, constants.

The one rule of which weights can be quantized stands here: :data:`QUANTIZABLE`.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch.nn.functional as F
from torch import Tensor, fx, nn

from hessrank.network.layer_facts import LayerFacts
from hessrank.network.layer_names import REARRANGEMENTS, Layer, node_kind
from hessrank.network.network import Network
from hessrank.network.weights import Weight, channel_axis, computed_by

QUANTIZABLE: frozenset[type[nn.Module]] = frozenset(
    (
        nn.Conv1d,
        nn.Conv2d,
        nn.Conv3d,
        nn.ConvTranspose1d,
        nn.ConvTranspose2d,
        nn.ConvTranspose3d,
        nn.Linear,
        nn.Embedding,
    )
)
"""The classes whose weights can be quantized: these alone, since a class derived from one may compute anything."""

_ELEMENTWISE = (nn.LayerNorm, nn.RMSNorm)  # their parameters may have several dimensions, but scale single elements
_LOOKUPS = ("embedding", "embedding_bag")  # functions that read a weight without multiplying
_PLAIN = "torch.nn.utils"
_WHOLE = "made of whole numbers only, so it was not ranked and no range is known"
_HIDDEN = "cut off from what was ranked (detached, or a view that is written to)"
_CONSTANT = "a constant of the network, not an activation"


@dataclass(frozen=True)
class _Read:
    """A tensor of the model that a layer reads.

    Attributes:
        name: of the parameter or buffer.
        tensor: itself.
        owner: path of the module that reads it; empty for a function.
    """

    name: str
    tensor: Tensor
    owner: str


class Operands:
    """The weights, biases and constants that the layers of a network read.

    Attributes:
        stored: bytes of every parameter and buffer that some layer reads, but for weights that can be quantized; what
            is floating is counted in float32, which files are exported in.
    """

    def __init__(self, network: Network, facts: Mapping[str, LayerFacts], weights: Sequence[Weight]) -> None:
        """Look at a network that has been run.

        Args:
            network: the network.
            facts: MACs of its layers.
            weights: the weights that its calls multiply with.
        """
        self._network, self._facts = network, facts
        self._modules = dict(network.model.named_modules())
        named = (*network.model.named_parameters(), *network.model.named_buffers())
        self._names = {id(tensor): name for name, tensor in named}
        self._weight_of = {call: weight.parameter for weight in weights for call in weight.calls}
        self.stored: dict[str, int] = {}

    @cached_property
    def _layer_nodes(self) -> frozenset[fx.Node]:
        nodes = self._network.nodes
        return frozenset(nodes[layer.name] for layer in self._network.layers if layer.name in nodes)

    def describe(self, layer: Layer) -> dict[str, Any]:
        """Return what a layer reads, in plain values, without empty keys.

        Returns:
            ``weight``, ``weight_numel``, ``channels``: name, elements and output channels of a weight that can be
            quantized; ``float_weights``, ``float_owner``, ``why_float``: names of the weights that cannot, the
            module that they are read in, why; ``reads``: names of the other parameters and buffers;
            ``float_inputs``: tensors that are neither, nor a layer's, and why they lie on no grid; ``mode``: how a
            padding or an interpolation fills in.
        """
        node = self._network.nodes.get(layer.name)
        module = self._modules[layer.module] if layer.module is not None else None
        weight = self._weight_of.get(layer.name)
        inside, described = self._network.inside, dict[str, Any]()
        if weight is not None and module is not None and (type(module) in QUANTIZABLE or layer.name in inside):
            described |= {"weight": self._names[id(weight)], "weight_numel": weight.numel()}
            described["channels"] = weight.shape[channel_axis(module)]
        reads = [read for read in self._find_reads(layer, node) if described.get("weight") != read.name]
        held = [read for read in reads if self._is_weight(layer, read)]
        if held:
            described |= {"float_weights": [read.name for read in held], "float_owner": held[0].owner}
            described["why_float"] = self._explain_float(layer, held[0])
        described["reads"] = [read.name for read in reads if read not in held]
        for read in reads:
            size = 4 if read.tensor.is_floating_point() else read.tensor.element_size()
            self.stored[read.name] = read.tensor.numel() * size
        described["float_inputs"] = self._find_float_inputs(layer, node)
        described["mode"] = _find_fill_mode(node, module)
        return {key: value for key, value in described.items() if value}

    def _multiplies(self, layer: Layer) -> bool:
        return self._facts[layer.name].macs > 0 or layer.kind in _LOOKUPS

    def _is_weight(self, layer: Layer, read: _Read) -> bool:
        """Return whether a layer multiplies with a tensor, or looks things up in it.

        What it only adds is no weight.
        """
        if not isinstance(read.tensor, nn.Parameter) or read.tensor.ndim < 2:
            return False
        if read.owner:
            return not isinstance(self._modules[read.owner], _ELEMENTWISE)
        return self._multiplies(layer)

    def _explain_float(self, layer: Layer, read: _Read) -> str:
        """Return why a weight cannot be quantized; the first reason that holds."""
        module = self._modules[read.owner or read.name.rpartition(".")[0]]
        kind, known = type(module).__name__, type(module) in QUANTIZABLE
        plain = next((base.__name__ for base in type(module).__mro__[1:] if base in QUANTIZABLE), "")
        called, only = not read.owner, f"only that of a plain {plain} can be quantized"
        reasons = {
            f"{kind} hands it to the function {layer.kind}: {only}": called and bool(plain),
            f"{layer.kind} is called as a function: make it a module to quantize its weight": called,
            f"computed by a parametrization: {_PLAIN}.parametrize.remove_parametrizations makes it a plain weight": (
                "parametrizations" in read.name.split(".")
            ),
            computed_by(module): bool(computed_by(module)),
            "computes with constants only, not with data": known and read.owner != layer.module,
            "given single samples: give them a batch dimension to quantize the weight": known,
            f"{kind} is derived from {plain}: {only}": bool(plain),
        }
        opaque = f"used inside the {kind}, which cannot be looked into"
        return next((why for why, holds in reasons.items() if holds), opaque)

    def _find_reads(self, layer: Layer, node: fx.Node | None) -> list[_Read]:
        """Return the parameters and buffers that a layer reads directly.

        No other layer lies in between.
        """
        found: dict[str, _Read] = {}
        if layer.module is not None and (node is None or str(node.target) != layer.module):
            found |= self._find_module_reads(layer.module)
        elif node is not None:
            for other in self._walk_back(node):
                if other.op == "call_module":
                    found |= self._find_module_reads(str(other.target))
                elif other.op == "get_attr":
                    tensor = _get_attribute(self._network.model, str(other.target))
                    if isinstance(tensor, Tensor):
                        name = self._names.get(id(tensor), str(other.target))
                        found.setdefault(name, _Read(name, tensor, ""))
        return list(found.values())

    def _find_module_reads(self, path: str) -> dict[str, _Read]:
        module = self._modules[path]
        tensors = [*module.parameters(), *(b for b in module.buffers() if b.ndim or b.is_floating_point())]
        names = [self._names[id(tensor)] for tensor in tensors]
        return {name: _Read(name, tensor, path) for name, tensor in zip(names, tensors, strict=True)}

    def _walk_back(self, node: fx.Node) -> Iterator[fx.Node]:
        """Yield a layer's node and all nodes before it up to the next layers."""
        waiting, seen = [node], {node}
        while waiting:
            other = waiting.pop()
            yield other
            before = [n for n in other.all_input_nodes if n not in seen and n not in self._layer_nodes]
            seen.update(before)
            waiting += before[::-1]

    def _find_float_inputs(self, layer: Layer, node: fx.Node | None) -> dict[str, str]:
        """Return the inputs of a kernel that lie on no grid, and why.

        They are floating tensors, neither weights nor layers.
        """
        if node is None or not (self._multiplies(layer) or layer.name in self._weight_of):
            return {}
        found = {}
        for argument in node.all_input_nodes:
            source = argument
            while source not in self._layer_nodes and node_kind(source) in REARRANGEMENTS and source.all_input_nodes:
                source = source.all_input_nodes[0]
            if source in self._layer_nodes or argument not in self._network.floating:
                continue
            if argument in self._network.from_data:
                behind_layer = any(
                    n in self._layer_nodes for b in self._walk_back(argument) for n in b.all_input_nodes
                )
                found[argument.name] = _HIDDEN if behind_layer else _WHOLE
            else:
                read = [str(n.target) for n in self._walk_back(argument) if n.op == "get_attr"]
                if not any(isinstance(_get_attribute(self._network.model, path), nn.Parameter) for path in read):
                    found[argument.name] = _CONSTANT
        return found


def _get_attribute(model: nn.Module, path: str) -> Any:
    value: Any = model
    for step in path.split("."):
        value = getattr(value, step)
    return value


def _find_fill_mode(node: fx.Node | None, module: nn.Module | None) -> str:
    """Return how a padding or an interpolation fills in; "" for other calls.

    Such as ``reflect``, ``constant 0``, ``nearest``.
    """
    if isinstance(module, nn.Upsample):
        return module.mode
    if isinstance(module, nn.modules.padding._ConstantPadNd):
        return f"constant {module.value or 0:g}"
    if node is None or node.op != "call_function" or node.target not in (F.pad, F.interpolate, F.upsample):
        return ""
    bound = inspect.signature(node.target).bind(*node.args, **node.kwargs)
    bound.apply_defaults()
    mode, value = bound.arguments["mode"], bound.arguments.get("value")
    if node.target is not F.pad or mode != "constant":
        return str(mode)
    return f"constant {value or 0:g}" if isinstance(value, int | float | None) else "constant"
