"""Where a NaN comes from."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import fx, nn

from hessrank.data.batch import Batch
from hessrank.distill.training.evaluate import finite
from hessrank.errors import HessrankError


class DivergedError(HessrankError):
    """A training whose loss or weights are not finite; older checkpoints are good."""


def nonfinite_weight(network: nn.Module) -> str | None:
    """Return the name of the first parameter that is not finite; None without one."""
    return next((name for name, parameter in network.named_parameters() if not finite(parameter)), None)


@torch.no_grad()
def first_nonfinite(student: nn.Module, nodes: Mapping[str, str], batch: Batch) -> str:
    """Return in words where NaN or infinity comes up first with a batch.

    Args:
        student: a torch.fx graph module, whose layers are looked at, or any other, whose modules are.
        nodes: for every layer name, its torch.fx node.
        batch: the batch that went wrong.
    """
    weight = nonfinite_weight(student)
    if weight is not None:
        return f"the first weight that is not finite is {weight!r}"
    if not finite((batch.args, batch.kwargs, batch.target)):
        return "the data of this step hold NaN or infinity"
    if isinstance(student, fx.GraphModule):
        finder = _Finder(student, {node: layer for layer, node in reversed(list(nodes.items()))})
        places = [node for node in student.graph.nodes if node.op == "placeholder"]
        names = [str(node.target) for node in places[len(batch.args) :]]
        finder.run(*batch.args[: len(places)], *(batch.kwargs[name] for name in names))
        found = finder.found
    else:
        found = _first_nonfinite_module(student, batch)
    if found is None:
        return "all layers are finite, the loss alone is not"
    return f"the first layer whose activation is not finite is {found!r}"


def _first_nonfinite_module(student: nn.Module, batch: Batch) -> str | None:
    """Return the first module to finish with a value that is not finite."""
    found: list[str] = []

    def look(name: str, output: Any) -> None:
        if not finite(output):
            found.append(name)

    with ExitStack() as stack:
        for name, module in student.named_modules():
            hook = module.register_forward_hook(lambda _module, _inputs, output, name=name: look(name, output))
            stack.callback(hook.remove)
        student(*batch.args, **batch.kwargs)
    return found[0] if found else None


class _Finder(fx.Interpreter):
    """Runs a graph and remembers the first node with a value that is not finite."""

    def __init__(self, module: fx.GraphModule, named: Mapping[str, str]) -> None:
        super().__init__(module)
        self._named = named
        self.found: str | None = None

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if self.found is None and not finite(value):
            self.found = self._named.get(n.name, n.name)
        return value
