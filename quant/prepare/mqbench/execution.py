"""Take one model through MQBench.

What it inserts is found by layer, and set as the policy says.
"""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import fx, nn

from hessrank.data.batch import Batch
from hessrank.errors import ModelError
from hessrank.models.wrappers import copy_network
from hessrank.network.layer_names import module_paths
from hessrank.network.weights import channel_axis
from hessrank.quant.layer_graph.graph import Graph
from hessrank.quant.layer_graph.quantizer_placement import QuantizerPlacement
from hessrank.quant.policy import Resolution, Setting
from hessrank.quant.prepare.model import META, Inserted
from hessrank.quant.prepare.mqbench.graph import (
    copies_share_tensors,
    layers_of,
    quantizers_behind,
    read_everywhere,
    reader_of,
    remove,
    repeated_with_weights,
    restore_parameters,
)
from hessrank.quant.prepare.mqbench.library import Library
from hessrank.quant.prepare.mqbench.quantizers import make_fake_quantizer
from hessrank.text import first_line

_REPLACED_LATER: dict[str, Any] = {
    "w_qscheme": {"bit": 8, "symmetry": False, "per_channel": False, "pot_scale": False},
    "a_qscheme": {"bit": 8, "symmetry": False, "per_channel": False, "pot_scale": False},
    "w_observer": "MinMaxObserver",
    "a_observer": "MinMaxObserver",
    "w_fakequantize": "FixedFakeQuantize",
    "a_fakequantize": "FixedFakeQuantize",
}


class Execution:
    """One model on its way through MQBench.

    Attributes:
        inserted: the tensors that MQBench quantizes.
        unquantized: those that stay as they are, and why.
        warnings: what else a user should know, a sentence each.
    """

    def __init__(
        self,
        library: Library,
        model: nn.Module,
        one: Batch,
        graph: Graph,
        placement: QuantizerPlacement,
        resolution: Resolution,
        platform: str,
    ) -> None:
        """Plan to quantize ``model`` at ``placement`` as ``resolution`` says.

        Args:
            library: MQBench.
            model: the network; it is copied.
            one: a batch, which tells what arguments are given.
            graph: the network's layers.
            placement: where its quantizers belong.
            resolution: their settings.
            platform: name of a ``BackendType``.

        Raises:
            UnknownNameError: there is no such platform.
        """
        self._library, self._model, self._graph = library, model, graph
        self._placement, self._resolution = placement, resolution
        self._platform, self._platform_name = library.platform(platform), platform
        self._paths = module_paths(model)
        self._defaults = _left_out(model, one)
        self.inserted: list[Inserted] = []
        self.unquantized = dict(placement.unquantized)
        self.warnings: list[str] = []

    def run(self, *, freeze_bn: bool) -> fx.GraphModule:
        """Return a copy of the model with the policy's fake-quantizers.

        Not calibrated yet.
        """
        with self._library.quiet():
            module, _ = self._prepared((), freeze_bn)
            module, parameters = self._prepared(self._readers_of_missing(module), freeze_bn)
            repeated = repeated_with_weights(module, self._paths)
            self._set_activations(module)
            self._set_weights(module, parameters)
        module.graph.lint()
        module.recompile()
        module.meta[META] = {
            "inserted": [asdict(one) for one in self.inserted],
            "unquantized": self.unquantized,
            "layer_nodes": {layer: node.name for node, layer in self._layers(module).items()}
            | {one.layer: one.node for one in self.inserted if one.tensor != "weight"},
            "freeze_bn": freeze_bn,
        }
        if repeated:
            calls = ", ".join(repeated)
            self.warnings.append(f"MQBench copies a module for each call: {calls} kept on the first call's weights")
            warnings.warn(self.warnings[-1], stacklevel=4)
        return module

    def _prepared(self, names: tuple[str, ...], freeze_bn: bool) -> tuple[fx.GraphModule, dict[int, str]]:
        """Let MQBench work on a copy, and return what it made.

        And its parameters' names in the model by identity.
        """
        taken = copy_network(self._model).train()  # in eval mode it would fold batch norms for good
        config = {
            "extra_qconfig_dict": copy.deepcopy(_REPLACED_LATER),
            "extra_quantizer_dict": {"additional_node_name": list(names)},
            "extra_fuse_dict": {"additional_qat_module_mapping": {nn.Embedding: self._library.embedding}},
            "concrete_args": self._defaults,
        }
        parameters = {id(parameter): name for name, parameter in taken.named_parameters()}
        try:
            with copies_share_tensors(taken):
                module = self._library.prepare(taken, self._platform, config, freeze_bn=freeze_bn)
        except Exception as error:  # torch.fx and MQBench raise anything at all
            why = f"{type(error).__name__}: {first_line(error)}"
            raise ModelError(
                f"MQBench ({self._platform_name}) cannot prepare this network ({why}); use backend='hessrank'"
            ) from error
        restore_parameters(module, taken.parameters())
        return module, parameters

    def _layers(self, module: fx.GraphModule) -> dict[fx.Node, str]:
        return layers_of(module, self._graph, self._paths)

    def _readers_of_missing(self, module: fx.GraphModule) -> tuple[str, ...]:
        """Return the nodes whose inputs MQBench has to be told to quantize.

        The network's input is often one.
        """
        layers = self._layers(module)
        found = {behind.layer for behind in quantizers_behind(module, layers, self._library.base)}
        readers = [reader_of(layer, layers) for layer in self._placement.activations if layer not in found]
        return tuple(reader for reader in readers if reader)

    def _setting(self, layer: str | None) -> Setting | None:
        """Return what the policy says about a layer's tensor.

        Within a kernel, about the kernel's result.
        """
        if layer is None:
            return None
        grid = self._placement.grid_of[layer] or self._placement.grid_of[self._placement.fused.get(layer, layer)]
        return None if grid is None else self._resolution.activations[grid]

    def _set_activations(self, module: fx.GraphModule) -> None:
        """Give each activation's fake-quantizer its settings.

        Take those out that the policy does not want.
        """
        layers = self._layers(module)
        for behind in quantizers_behind(module, layers, self._library.base):
            setting = self._setting(behind.layer)
            if setting is None or behind.layer is None:
                remove(module, behind)
                continue
            read_everywhere(behind)
            made = make_fake_quantizer(self._library, setting, behind.layer, weight=False, axis=1)
            module.set_submodule(behind.path, made.to(_device(module)))
            self.unquantized.pop(behind.layer, None)
            tensor = "input" if self._graph[behind.layer].kind == "input" else "activation"
            self.inserted.append(Inserted(behind.layer, tensor, behind.path, behind.node.name, setting.reason))
        quantized = {one.layer for one in self.inserted}
        self.unquantized |= {
            layer: self._why_not(layer, layers) for layer in self._placement.activations if layer not in quantized
        }

    def _why_not(self, layer: str, layers: Mapping[fx.Node, str]) -> str:
        if layer not in layers.values():
            return f"the policy asks for it, but MQBench computes {layer} within another module"
        return f"the policy asks for it, but MQBench ({self._platform_name}) puts no quantizer there"

    def _set_weights(self, module: fx.GraphModule, parameters: Mapping[int, str]) -> None:
        """Give each weight's fake-quantizer its settings.

        Calls and modules that share a weight share it.
        """
        made: dict[tuple[str, int], tuple[str, nn.Module]] = {}
        layers = self._layers(module)
        for node in [node for node in module.graph.nodes if node.op == "call_module"]:
            kernel = module.get_submodule(str(node.target))
            if not hasattr(kernel, "weight_fake_quant"):
                continue
            weight = parameters.get(id(kernel.weight), "")
            setting = self._resolution.weights.get(weight)
            if setting is None:
                kernel.weight_fake_quant = nn.Identity()
                continue
            axis = channel_axis(kernel)
            if (weight, axis) not in made:
                fresh = make_fake_quantizer(self._library, setting, weight, weight=True, axis=axis)
                made[weight, axis] = f"{node.target}.weight_fake_quant", fresh.to(_device(module))
            path, kernel.weight_fake_quant = made[weight, axis]
            layer = str(node.target) if str(node.target) in self._graph.nodes else layers[node]
            self.inserted.append(Inserted(layer, "weight", path, node.name, setting.reason))
        done = {weight for weight, _ in made}
        missing = [weight for weight in self._resolution.weights if weight not in done]
        self.unquantized |= dict.fromkeys(missing, f"MQBench ({self._platform_name}) quantizes no such weight")


def _left_out(model: nn.Module, one: Batch) -> dict[str, Any]:
    """Return the arguments of ``forward`` that the data lacks, with defaults."""
    given = inspect.signature(model.forward).bind(*one.args, **one.kwargs).arguments
    parameters = inspect.signature(model.forward).parameters.values()
    return {p.name: p.default for p in parameters if p.name not in given and p.default is not p.empty}


def _device(module: nn.Module) -> torch.device:
    first = next(module.parameters(), None)
    return torch.device("cpu") if first is None else first.device
