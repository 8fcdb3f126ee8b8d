"""The teacher: a frozen network whose activations the student is compared with."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, fx, nn

from hessrank.data.batch import Batch
from hessrank.distill.teacher.activations import tapped
from hessrank.quant.prepare import QuantizedModel
from hessrank.quant.prepare.tracing import trace


class TracedNetwork(NamedTuple):
    """A network as a graph, the node of every layer, and notes on the tracing."""

    module: fx.GraphModule
    nodes: dict[str, str]
    notes: tuple[str, ...] = ()


def trace_network(model: nn.Module, batch: Batch) -> TracedNetwork:
    """Return a network as a torch.fx graph: itself if quantized, else a traced copy.

    Args:
        model: any network; untouched.
        batch: one sample, to trace with.

    Raises:
        ModelError: torch.fx cannot follow the network's code.
    """
    if isinstance(model, QuantizedModel):
        return TracedNetwork(model, dict(model.layer_nodes))
    traced = trace(model, batch)
    return TracedNetwork(traced.module, {name: node.name for name, node in traced.nodes.items()}, traced.notes)


class Teacher:
    """A frozen network. It is no ``nn.Module``: no state dict or optimizer holds it.

    Attributes:
        layers: those whose activations it gives.
    """

    def __init__(self, model: nn.Module, batch: Batch, layers: Sequence[str]) -> None:
        """Freeze a copy of ``model``.

        Args:
            model: float or quantized; untouched.
            batch: one sample, to trace with.
            layers: whose activations are wanted.

        Raises:
            UnknownNameError: a layer that it has not.
            ModelError: torch.fx cannot follow its code.
        """
        graph = trace_network(model, batch)
        self.layers = tuple(layers)
        own = graph.module is not model  # a quantized network's modules are the user's
        view = tapped(graph.module, graph.nodes, layers)
        self._module = view if own else copy.deepcopy(view)
        self._module.eval().requires_grad_(False)

    def to(self, device: torch.device) -> Self:
        """Move it to a device."""
        self._module.to(device)
        return self

    @torch.no_grad()
    def __call__(self, batch: Batch) -> tuple[Any, dict[str, Tensor]]:
        """Return its output and its activations by layer."""
        found: tuple[Any, dict[str, Tensor]] = self._module(*batch.args, **batch.kwargs)
        return found

    def answer(self, *args: Any, **kwargs: Any) -> Any:
        """Return its output alone; called as the network is."""
        return self(Batch(args, kwargs))[0]
