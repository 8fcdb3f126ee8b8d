"""Rewrite a traced model with quantizers.

Fold batch norms, quantize weights, put quantizers behind layers.
"""

from __future__ import annotations

import torch
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hessrank.network.weights import channel_axis
from hessrank.quant.layer_graph.quantizer_placement import QuantizerPlacement, find_folded_norms
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
        self._folded = find_folded_norms(traced.graph, placement)
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
                first = next(layer for layer in layers if self._nodes[layer].target == path)
                reason = setting.reason if len(layers) == 1 else f"{setting.reason}; shared by {', '.join(layers)}"
                self.inserted.append(Inserted(first, "weight", where, self._nodes[first].name, reason))

    def _take_batch_norm(self, layer: str) -> _BatchNorm | None:
        """Take the norm that a layer's weight folds in out of the graph.

        And return it.
        """
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
            call = self._activation_nodes[layer] = self._call_behind(node, paths[grid])
            tensor = "input" if node.op == "placeholder" else "activation"
            reason = setting.reason if layer == grid else f"{setting.reason}; one grid with {grid}"
            self.inserted.append(Inserted(layer, tensor, paths[grid], call.name, reason))

    def _call_behind(self, node: fx.Node, path: str) -> fx.Node:
        """Call a quantizer behind a node, whose readers then read the call.

        What writes in place writes to a copy: the gradient of a quantizer needs what the quantizer made.
        """
        last = node
        while last.op == "placeholder" and last.next.op == "placeholder":
            last = last.next  # the network's arguments all come first
        graph = self._module.graph
        with graph.inserting_after(last):
            call = graph.call_module(path, (node,))
        node.replace_all_uses_with(call, delete_user_cb=lambda user: user is not call)
        if is_written_to(self._module, call):
            with graph.inserting_after(call):
                copy = graph.call_method("clone", (call,))
            call.replace_all_uses_with(copy, delete_user_cb=lambda user: user is not copy)
        return call

    def _add_quantizer(self, grid: str, setting: Setting) -> str:
        quantizer = make_quantizer(setting.method, setting.scheme, observer=setting.observer, weight=False)
        word = "".join(c if c.isidentifier() or c.isdigit() else "__" for c in grid)  # which an attribute can have
        path = f"quantizers.{word if word.isidentifier() else f'layer_{word}'}"
        while path in dict(self._module.named_modules()):
            path += "_"
        self._module.add_submodule(path, quantizer.to(next((p.device for p in self._module.parameters()), "cpu")))
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
