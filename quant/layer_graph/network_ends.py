"""Find the last layer but one of a network.

What its sub-networks are says :mod:`hessrank.network.sub_networks`.
"""

from __future__ import annotations

from hessrank.quant.layer_graph.graph import Graph
from hessrank.quant.layer_graph.layer_kinds import passes_grid_on


def before_last(graph: Graph, exit_layer: str) -> str | None:
    """Return the last layer but one.

    It is what the last weighted layer reads, seen through reshuffles.

    None if that is an input of the network.
    """
    node = graph[exit_layer]
    while node.inputs:
        node = graph[node.inputs[0]]
        if not passes_grid_on(node):
            break
    return None if node.kind == "input" or node.name == exit_layer else node.name
