"""Rewrites a traced model: folds batch norms, quantizes weights, puts quantizers behind layers."""

from __future__ import annotations

import torch
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hessrank.network.weights import channel_axis
from hessrank.quant.layer_graph.quantizer_placement import QuantizerPlacement, folded_norms
from hessrank.quant.policy import Resolution, Setting
from hessrank.quant.prepare.inplace import is_written_to
from hessrank.quant.prepare.model import Inserted
from hessrank.quant.prepare.modules import quantize_module
from hessrank.quant.prepare.tracing import TracedModel
from hessrank.quant.quantizers import Quantizer, make_quantizer


class Insertion:
    """One model on its way from traced to quantized.

    Attributes:
        inserted: what was inserted so far.
        unquantized: tensors that stay as they are, and why.
    """

    def __init__(self, traced: TracedModel, placement: QuantizerPlacement, resolution: Resolution) -> None:
        """Plan to quantize ``traced`` at ``placement`` as ``resolution`` says."""
        self._module, self._graph, self._nodes = traced.module, traced.graph, dict(traced.nodes)
        self._placement, self._resolution = placement, resolution
        self._folded = folded_norms(traced.graph, placement)
        self._activation_nodes: dict[str, fx.Node] = {}
        self.inserted: list[Inserted] = []
        self.unquantized = {f"activation of {name}": why for name, why in placement.unquantized.items()}
        self.unquantized |= placement.in_float

    def run(self) -> None:
        """Rewrite the model."""
        self._quantize_weights()
        self._quantize_activations()
        self._module.graph.lint()
        self._module.recompile()
        order = list(self._graph.nodes)
        self.inserted.sort(key=lambda one: (order.index(one.layer), one.tensor == "activation"))

    @property
    def layer_nodes(self) -> dict[str, str]:
        """For every layer name, the node whose value its readers see."""
        return {name: self._activation_nodes.get(name, node).name for name, node in self._nodes.items()}

    def _quantize_weights(self) -> None:
        for weight, layers in self._placement.weights.items():
            setting = self._resolution.weights[weight]
            quantizers: dict[int, tuple[str, Quantizer]] = {}
            for path in dict.fromkeys(str(self._nodes[layer].target) for layer in layers):
                module = self._module.get_submodule(path)
                axis = channel_axis(module)
                if axis not in quantizers:
                    quantizers[axis] = (f"{path}.weight_quantizer", _weight_quantizer(module, setting))
                where, quantizer = quantizers[axis]
                quantize_module(module, quantizer, self._take_batch_norm(layers[0]))
                self._note_weight(path, layers, where, setting)

    def _note_weight(self, path: str, layers: tuple[str, ...], quantizer: str, setting: Setting) -> None:
        first = next(layer for layer in layers if self._nodes[layer].target == path)
        node = self._nodes[first].name
        reason = setting.reason if len(layers) == 1 else f"{setting.reason}; shared by {', '.join(layers)}"
        self.inserted.append(Inserted(first, "weight", quantizer, node, reason))

    def _take_batch_norm(self, layer: str) -> _BatchNorm | None:
        """Take the batch norm that is folded into a layer's weight out of the graph, and return it."""
        name = next((norm for norm, other in self._folded.items() if other == layer), None)
        if name is None:
            return None
        node, norm_node = self._nodes[layer], self._nodes[name]
        norm = self._module.get_submodule(str(norm_node.target))
        assert isinstance(norm, _BatchNorm)
        norm_node.replace_all_uses_with(node)
        self._module.graph.erase_node(norm_node)
        self._module.delete_submodule(str(norm_node.target))
        self._nodes[name] = node
        return norm

    def _quantize_activations(self) -> None:
        paths: dict[str, str] = {}
        for layer, grid in self._placement.activations.items():
            setting = self._resolution.activations[grid]
            if grid not in paths:
                paths[grid] = self._add_quantizer(grid, setting)
            node = self._nodes[layer]
            with self._module.graph.inserting_after(self._behind_inputs(node)):
                call = self._module.graph.call_module(paths[grid], (node,))
            for reader in [user for user in node.users if user is not call]:
                reader.replace_input_with(node, call)
            if is_written_to(self._module, call):
                self._spare(call)
            self._activation_nodes[layer] = call
            tensor = "input" if node.op == "placeholder" else "activation"
            reason = setting.reason if layer == grid else f"{setting.reason}; one grid with {grid}"
            self.inserted.append(Inserted(layer, tensor, paths[grid], call.name, reason))

    def _spare(self, call: fx.Node) -> None:
        """Let what writes in place write to a copy: the gradient of a quantizer needs what the quantizer made."""
        with self._module.graph.inserting_after(call):
            spare = self._module.graph.call_method("clone", (call,))
        for reader in [user for user in call.users if user is not spare]:
            reader.replace_input_with(call, spare)

    def _behind_inputs(self, node: fx.Node) -> fx.Node:
        """Return the node itself, or the last of the network's arguments: they all come first."""
        while node.op == "placeholder" and node.next.op == "placeholder":
            node = node.next
        return node

    def _add_quantizer(self, grid: str, setting: Setting) -> str:
        quantizer = make_quantizer(setting.method, setting.scheme, observer=setting.observer, weight=False)
        path = f"quantizers.{_attribute(grid)}"
        while path in dict(self._module.named_modules()):
            path += "_"
        self._module.add_submodule(path, quantizer.to(_device(self._module)))
        return path


def _weight_quantizer(module: nn.Module, setting: Setting) -> Quantizer:
    weight = module.weight
    assert isinstance(weight, torch.Tensor)
    per_channel = setting.scheme.per_channel
    axis = channel_axis(module) if per_channel else None
    channels = weight.shape[channel_axis(module)] if per_channel else None
    made = make_quantizer(
        setting.method, setting.scheme, observer=setting.observer, axis=axis, channels=channels, weight=True
    )
    return made.to(weight.device)


def _attribute(name: str) -> str:
    """Return a layer's name as one that an attribute can have."""
    word = "".join(c if c.isidentifier() or c.isdigit() else "__" for c in name)
    return word if word.isidentifier() else f"layer_{word}"


def _device(module: nn.Module) -> torch.device:
    first = next(module.parameters(), None)
    return torch.device("cpu") if first is None else first.device
