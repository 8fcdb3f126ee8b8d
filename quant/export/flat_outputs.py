"""Flatten what a model returns into a plain row of tensors, as a file has it.

No tuples in it, no named ones, no dicts.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils._pytree import tree_leaves

from hessrank.quant.export.errors import ExportError
from hessrank.quant.export.sizes import Inputs, attempted
from hessrank.quant.prepare.model import QuantizedModel


def flatten_outputs(model: QuantizedModel, inputs: Inputs) -> None:
    """Let ``model`` return the tensors that it computes one by one.

    Each once, and nothing else.

    Args:
        model: changed in place.
        inputs: what it is run on.

    Raises:
        ExportError: it does not take the inputs, or returns no tensor.
    """
    values = _Values(model)
    attempted(inputs, lambda: values.run(*inputs.values()))
    output = next(node for node in model.graph.nodes if node.op == "output")
    leaves = tree_leaves(output.args[0])
    nodes = [leaf for leaf in leaves if isinstance(leaf, fx.Node)]
    with model.graph.inserting_before(output):
        flat = [tensor for node in nodes for tensor in _tensors(model.graph, node, values.found[node])]
    flat = [node for node in dict.fromkeys(flat) if node.op != "placeholder"]
    if not flat:
        raise ExportError("the model computes no tensor that it returns: let forward return what the file should")
    if flat != leaves:
        output.args = (tuple(flat),)
        model.recompile()


class _Values(fx.Interpreter):
    """Runs a model and keeps what its nodes yield."""

    def __init__(self, model: QuantizedModel) -> None:
        super().__init__(model)
        self.extra_traceback = False
        self.found: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        with torch.no_grad():
            self.found[n] = super().run_node(n)
        return self.found[n]


def _tensors(graph: fx.Graph, node: fx.Node, value: Any) -> Iterator[fx.Node]:
    """Yield nodes for the tensors in what a node yields."""
    if isinstance(value, Tensor):
        yield node
    elif isinstance(value, tuple | list):
        constructor: Any = type(value)
        made_here = node.op == "call_function" and node.target is constructor and len(node.args) == len(value)
        for place, part in enumerate(value):
            inner = node.args[place] if made_here else None
            yield from _tensors(graph, inner if isinstance(inner, fx.Node) else _item(graph, node, place), part)
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from _tensors(graph, _item(graph, node, key), part)


def _item(graph: fx.Graph, node: fx.Node, place: Any) -> fx.Node:
    return graph.call_function(operator.getitem, (node, place))
