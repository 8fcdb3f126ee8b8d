"""Handle what a network writes in place.

Readers get the result, and what a quantizer made is not written over.
"""

from __future__ import annotations

import inspect
import operator

from torch import fx

from hessrank.network.layer_names import node_kind
from hessrank.quant.layer_graph.layer_kinds import RESHUFFLES

_OPERATORS = frozenset(
    (operator.iadd, operator.isub, operator.imul, operator.itruediv, operator.ifloordiv, operator.imod, operator.ipow)
)


def written_by(module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """Return the node whose tensor ``node`` writes to in place, or None."""
    if node.op == "call_module":
        writes = bool(getattr(module.get_submodule(str(node.target)), "inplace", False))
    elif node.op == "call_function" and node.target not in _OPERATORS:
        writes = node_kind(node).endswith("_") or bool(_argument(node, "inplace"))
    else:
        writes = node.target in _OPERATORS or (node.op == "call_method" and node_kind(node).endswith("_"))
    return node.all_input_nodes[0] if writes and node.all_input_nodes else None


def hand_results_on(module: fx.GraphModule) -> None:
    """Let whatever reads a tensor after it was written to in place read what wrote it.

    The value is the same: one tensor has two names then, and a quantizer behind the second must reach all readers.
    """
    order = {node: place for place, node in enumerate(module.graph.nodes)}
    for node in module.graph.nodes:
        source = written_by(module, node)
        if source is not None:
            for reader in [user for user in source.users if order[user] > order[node]]:
                reader.replace_input_with(source, node)


def is_written_to(module: fx.GraphModule, node: fx.Node) -> bool:
    """Return whether a node's tensor, or a view of it, is written to in place."""
    waiting = [node]
    while waiting:
        source = waiting.pop()
        for user in source.users:
            if written_by(module, user) is source:
                return True
            called = module.get_submodule(str(user.target)) if user.op == "call_module" else None
            if (node_kind(user) if called is None else type(called).__name__) in RESHUFFLES:
                waiting.append(user)
    return False


def _argument(node: fx.Node, name: str) -> object:
    """Return what a function is called with.

    None if it takes no such argument, or nobody can say.
    """
    if name in node.kwargs or not callable(node.target):
        return node.kwargs.get(name)
    try:
        return inspect.signature(node.target).bind(*node.args, **node.kwargs).arguments.get(name)
    except (TypeError, ValueError):  # a function written in C has no signature
        return None
