"""A copy of the user's model as a torch.fx graph module, whose nodes are found by the layers' names."""

from __future__ import annotations

import copy
import inspect
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from hessrank.analysis.batches import Batch, first_line
from hessrank.analysis.graph_walk import GraphWalk
from hessrank.analysis.network import Network
from hessrank.analysis.survey import first_look
from hessrank.analysis.untouched import untouched
from hessrank.analysis.weights import find_weights, without_trace
from hessrank.errors import ModelError
from hessrank.quant.graph import Graph, Node
from hessrank.quant.prepare.inplace import hand_results_on
from hessrank.quant.prepare.training_mode import DROPOUTS, training_notes

_NOT_THEIRS = {Path(inspect.getfile(torch)).parent, Path(inspect.getfile(GraphWalk)).parent, Path(__file__).parent}


@dataclass(frozen=True)
class Traced:
    """A model ready to be rewritten.

    Attributes:
        module: a graph module on a copy of the model.
        graph: its layers, as policies see them.
        nodes: the torch.fx node of every layer that is one.
        notes: what of the model is not in the graph: what only training mode computes, parameters in no use.
    """

    module: fx.GraphModule
    graph: Graph
    nodes: dict[str, fx.Node]
    notes: tuple[str, ...]


def trace(model: nn.Module, batch: Batch) -> Traced:
    """Trace a copy of ``model`` with the arguments that ``batch`` supplies; all others keep their defaults.

    Args:
        model: any network; untouched.
        batch: one sample.

    Raises:
        ModelError: torch.fx cannot follow the model's code; the message names the line and what to do.
        DataError: the model does not take such an input.
    """
    model = copied(model)
    with untouched(model):
        network = Network(model, batch)
        if network.why_hooks:
            raise _untraceable(model, batch, network.why_hooks)
        graph = _graph(network, batch)
        nodes = {name: network.nodes[name] for name in graph.nodes if name not in network.inside}
        traced = next(iter(nodes.values())).graph
        constants = _constants(model, traced)
    notes = training_notes(model, batch)
    vars(model).update(constants)
    module = fx.GraphModule(model, traced)
    hand_results_on(module)
    given = inspect.signature(model.forward).bind(*batch.args, **batch.kwargs).arguments
    _drop_defaults(module.graph, set(given))
    for node in nodes.values():
        _follow_mode(module, node)
    for node in module.graph.nodes:
        node.type = None  # forward's annotations: of a postponed one torch.fx makes what cannot be pickled
    module.recompile()
    return Traced(module, graph, nodes, notes)


def copied(model: nn.Module) -> nn.Module:
    """Return a copy of a model; of the tensors that it keeps from its last run without their history."""
    kept = [value for module in model.modules() for value in vars(module).values() if isinstance(value, Tensor)]
    return copy.deepcopy(model, {id(tensor): tensor.detach().clone() for tensor in kept if not tensor.is_leaf})


def _constants(model: nn.Module, graph: fx.Graph) -> dict[str, Tensor]:
    """Return the tensors that forward makes of numbers: torch.fx lays them down in the model while it traces."""
    names = {str(node.target) for node in graph.nodes if node.op == "get_attr"}
    return {name: value for name, value in vars(model).items() if name in names and isinstance(value, Tensor)}


def graph_of(model: nn.Module, batch: Batch) -> Graph:
    """Return the layers of ``model`` and how they hang together; it need not be traceable.

    Args:
        model: any network; untouched.
        batch: one sample.
    """
    with untouched(model):
        return _graph(Network(model, batch), batch)


def _graph(network: Network, one: Batch) -> Graph:
    facts = first_look(network, one)
    parameter = {id(p): name for name, p in network.model.named_parameters()}
    weights = find_weights(network, one)
    weight_of = {call: weight.parameter for weight in weights for call in weight.calls}

    def node(name: str, kind: str) -> Node:
        weight = weight_of.get(name)
        return Node(
            name,
            kind,
            network.inputs[name],
            facts[name].shape,
            facts[name].numel,
            facts[name].macs,
            None if weight is None else parameter[id(weight)],
            0 if weight is None else weight.numel(),
            inside=name in network.inside,
        )

    nodes = (node(layer.name, layer.kind) for layer in network.layers)
    return Graph.of(nodes, network.outputs, without_trace(network, weights))


def _drop_defaults(graph: fx.Graph, given: set[str]) -> None:
    """Take arguments that were not given out of a graph: their defaults are part of it already."""
    for placeholder in [node for node in graph.nodes if node.op == "placeholder"]:
        if str(placeholder.target).lstrip("*") in given or not placeholder.args:
            continue
        for user in list(placeholder.users):  # torch.fx asserts that the default was not changed
            for check in list(user.users):
                graph.erase_node(check)
            graph.erase_node(user)
        graph.erase_node(placeholder)


def _follow_mode(module: fx.GraphModule, node: fx.Node) -> None:
    """Make a functional dropout, which was traced as switched off, a module that knows about train and eval."""
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
        theirs = [f for f in traceback.extract_tb(error.__traceback__) if _NOT_THEIRS.isdisjoint(_folders(f))]
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


def _folders(frame: traceback.FrameSummary) -> Iterable[Path]:
    return Path(frame.filename).parents
