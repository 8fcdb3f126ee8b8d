"""Activations of a network by the names of its layers, without hooks.

A torch.fx graph is rewritten so that it returns, beside its output, the activations that are asked for. The copy runs
the same modules with the same parameters; what was given stays as it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import fx

from hessrank.errors import ModelError, unknown_name
from hessrank.network.walks.any_names import AnyNames, Tracer
from hessrank.quant.prepare.inplace import is_written_to


def tapped(module: fx.GraphModule, nodes: Mapping[str, str], layers: Sequence[str]) -> fx.GraphModule:
    """Return a graph module that returns ``(output, {layer: activation})``.

    Args:
        module: whose modules and parameters it shares; its mode (train or eval) too.
        nodes: for every layer name the name of the torch.fx node whose value is its activation.
        layers: those to take out.

    Raises:
        UnknownNameError: a layer that the network has not.
    """
    found = {node.name: node for node in module.graph.nodes}
    for layer in layers:
        if layer not in nodes:
            raise unknown_name("layer", layer, nodes)
        if nodes[layer] not in found:
            raise ModelError(f"layer {layer!r}: its node {nodes[layer]!r} is not in the graph any more")
    graph = fx.Graph(tracer_cls=Tracer)
    graph.set_codegen(AnyNames())
    copies: dict[fx.Node, fx.Node] = {}
    output = graph.graph_copy(module.graph, copies)
    taps = {layer: _kept(module, graph, found[nodes[layer]], copies) for layer in layers}
    graph.output((output, taps))
    graph.lint()
    return fx.GraphModule(module, graph, type(module).__name__)


def _kept(module: fx.GraphModule, graph: fx.Graph, node: fx.Node, copies: Mapping[fx.Node, fx.Node]) -> fx.Node:
    """Return the node's copy, or a clone of its value before something writes to it in place."""
    copy = copies[node]
    if not is_written_to(module, node):
        return copy
    with graph.inserting_after(copy):
        return graph.call_method("clone", (copy,))
