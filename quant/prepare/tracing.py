"""Trace a copy of the user's model; its nodes are found by layer name.

The trace is a torch.fx graph module.
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from hessrank.analysis.result.assemble import describe_graph, shape_span
from hessrank.data.batch import Batch
from hessrank.errors import ModelError
from hessrank.models.wrappers import copy_network, unwrap
from hessrank.network.frozen_model import freeze
from hessrank.network.layer_facts import LayerFacts, SampleAxis
from hessrank.network.layer_sizes import measure_sizes
from hessrank.network.layer_survey import find_ranges, find_sample_axes, mask_by_fills
from hessrank.network.network import Network
from hessrank.network.padding import leave_out_padding
from hessrank.network.sample_batches import SampleBatches, check_finite
from hessrank.network.walks.fx_walk import GraphWalk
from hessrank.network.weights import find_weights
from hessrank.quant.layer_graph.graph import Graph
from hessrank.quant.prepare.inplace import hand_results_on
from hessrank.quant.prepare.model import QuantizedModel
from hessrank.quant.prepare.training_mode import DROPOUTS, training_notes
from hessrank.text import first_line

HOLDERS = ("quantizers", "dropouts", "at_nodes")
"""What hessrank puts into a graph module: quantizers, functional dropouts; what an export makes of both."""
_NOT_THEIRS = {Path(inspect.getfile(torch)).parent, Path(inspect.getfile(GraphWalk)).parent, Path(__file__).parent}


@dataclass(frozen=True)
class TracedModel:
    """A model ready to be rewritten.

    Attributes:
        module: a graph module on a copy of the model.
        graph: its layers, as policies see them.
        nodes: the torch.fx node of every layer that is one.
        axes: where each layer keeps its samples and their positions.
        notes: what of the model is not in the graph: what only training mode computes, parameters in no use.
    """

    module: fx.GraphModule
    graph: Graph
    nodes: dict[str, fx.Node]
    axes: dict[str, SampleAxis]
    notes: tuple[str, ...]


def trace(model: nn.Module, batch: Batch, batches: SampleBatches | None = None) -> TracedModel:
    """Trace a copy of ``model`` with the arguments that ``batch`` supplies.

    All others keep their defaults.

    Args:
        model: any network; untouched.
        batch: one sample.
        batches: the samples in which masks and padding are looked for; None looks at ``batch`` alone.

    Raises:
        ModelError: torch.fx cannot follow the model's code; the message names the line and what to do.
        DataError: the model does not take such an input.
    """
    model = copy_network(model)
    with freeze(model):
        network = Network(model, batch)
        if network.why_hooks:
            raise _untraceable(model, batch, network.why_hooks)
        facts = _facts(network, batch, batches)
        graph = _graph(network, batch, facts)
        nodes = {name: network.nodes[name] for name in graph.nodes if name not in network.inside}
        traced = next(iter(nodes.values())).graph
        constants = _constants(model, traced)
    notes = training_notes(model, batch)
    vars(model).update(constants)
    _make_room(model, traced)
    module = fx.GraphModule(model, traced)
    hand_results_on(module)
    given = inspect.signature(model.forward).bind(*batch.args, **batch.kwargs).arguments
    _drop_defaults(module.graph, set(given))
    for node in nodes.values():
        _follow_mode(module, node)
    for node in module.graph.nodes:
        node.type = None  # forward's annotations: of a postponed one torch.fx makes what cannot be pickled
    module.recompile()
    return TracedModel(module, graph, nodes, {name: fact.axis for name, fact in facts.items()}, notes)


def _make_room(model: nn.Module, graph: fx.Graph) -> None:
    """Rename what has a name that a graph module needs itself.

    ``graph`` becomes ``graph_``.
    """
    plain, made = nn.Module(), QuantizedModel(nn.Module(), fx.Graph())
    taken = {*dir(made), *HOLDERS} - {*dir(plain)}
    renamed: dict[str, str] = {}
    for node in graph.nodes:
        name, dot, rest = str(node.target).partition(".")
        if node.op not in ("call_module", "get_attr") or name not in taken:
            continue
        if name not in renamed:
            renamed[name] = f"{name}_"
            while hasattr(model, renamed[name]):
                renamed[name] += "_"
            thing = getattr(model, name)
            delattr(model, name)
            setattr(model, renamed[name], thing)
        node.target = f"{renamed[name]}{dot}{rest}"
        node._rename(graph._target_to_str(node.target))  # as it is called when it comes out of a pickle


def _constants(model: nn.Module, graph: fx.Graph) -> dict[str, Tensor]:
    """Return the tensors that forward makes of numbers.

    torch.fx lays them down in the model while it traces.
    """
    names = {str(node.target) for node in graph.nodes if node.op == "get_attr"}
    return {name: value for name, value in vars(model).items() if name in names and isinstance(value, Tensor)}


def graph_of(model: nn.Module, batch: Batch, batches: SampleBatches | None = None) -> Graph:
    """Return the layers of ``model`` and how they hang together.

    The model need not be traceable.

    Args:
        model: any network; untouched.
        batch: one sample.
        batches: the samples in which masks are looked for; None looks at ``batch`` alone.
    """
    model = unwrap(model)
    with freeze(model):
        network = Network(model, batch)
        return _graph(network, batch, _facts(network, batch, batches))


def _facts(network: Network, one: Batch, batches: SampleBatches | None) -> dict[str, LayerFacts]:
    """Return what the samples show of each layer.

    Of one sample its shapes, of all which scores are masked and what is padding.
    """
    facts = measure_sizes(network, one)
    mask_by_fills(network, facts)
    if batches is None:
        find_ranges(network, one, facts)
        return facts
    batched = batches.batch_size > 1 and len(batches) > 1
    mixed = batched and find_sample_axes(network, one, batches.batch(0, 1), facts)
    padded = any(leave_out_padding(network, batches, facts))
    if mixed and padded:
        batches.batch_size = 1  # or else nobody could say which positions are whose

    def look(batch: Batch) -> None:
        check_finite(batch)
        find_ranges(network, batch, facts)

    batches.for_each(look)
    return facts


def _graph(network: Network, one: Batch, facts: Mapping[str, LayerFacts]) -> Graph:
    rows = {
        layer.name: {
            "kind": layer.kind,
            "shape": shape_span(facts[layer.name].shapes),
            "numel": facts[layer.name].numel,
            "macs": facts[layer.name].macs,
        }
        for layer in network.layers
    }
    return Graph.described(describe_graph(network, facts, find_weights(network, one)), rows)


def _drop_defaults(graph: fx.Graph, given: set[str]) -> None:
    """Take arguments that were not given out of a graph.

    Their defaults are part of it already.
    """
    for placeholder in [node for node in graph.nodes if node.op == "placeholder"]:
        if str(placeholder.target).lstrip("*") in given or not placeholder.args:
            continue
        for user in list(placeholder.users):  # torch.fx asserts that the default was not changed
            for check in list(user.users):
                graph.erase_node(check)
            graph.erase_node(user)
        graph.erase_node(placeholder)


def _follow_mode(module: fx.GraphModule, node: fx.Node) -> None:
    """Make a functional dropout a module that knows about train and eval.

    It was traced as switched off.
    """
    kind = DROPOUTS.get(node.target) if node.op == "call_function" else None
    if kind is None or node.kwargs.get("training", True):
        return
    p: Any = node.kwargs.get("p", node.args[1] if len(node.args) > 1 else 0.5)
    path = f"dropouts.{node.name}"
    module.add_submodule(path, kind(p).train(module.training))
    node.op, node.target, node.args, node.kwargs = "call_module", path, (node.all_input_nodes[0],), {}


def _untraceable(model: nn.Module, batch: Batch, why: str) -> ModelError:
    try:
        GraphWalk(model, batch)
    except Exception as error:  # torch.fx raises anything at all on code that it cannot follow
        theirs = [
            f for f in traceback.extract_tb(error.__traceback__) if _NOT_THEIRS.isdisjoint(Path(f.filename).parents)
        ]
        if not theirs:
            return ModelError(
                f"torch.fx cannot trace {type(model).__name__}, which is torch's own ({first_line(error)}): give the "
                "module inside it, or put it inside a module of yours, where it stays in float"
            )
        return ModelError(
            f"{theirs[-1].filename}:{theirs[-1].lineno}: {theirs[-1].line}: torch.fx cannot trace this "
            f"({first_line(error)}): move what depends on values or shapes, or writes to a part of a tensor, out of "
            "forward or into a function under torch.fx.wrap; a ranking works without tracing, quantizing does not"
        )
    return ModelError(f"the model cannot be quantized: {why}")
