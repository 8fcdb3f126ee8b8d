"""Hooks that see the gradients of one backward pass at activations and weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hessrank.analysis.estimators.base import Work
from hessrank.errors import ModelError
from hessrank.network.layer_names import Layer
from hessrank.network.walks.call import Call
from hessrank.text import first_line

Hook = Callable[[Tensor], None]
"""Takes the gradient at an activation; the gradient itself is not kept."""


class ActivationHooks:
    """A tap that adds gradient hooks to activations and to the calls of weights."""

    def __init__(
        self,
        work: Work,
        on_layer: Callable[[int, Layer, Tensor], Hook],
        on_weight: Callable[[int, Layer, nn.Module, Tensor], Hook],
    ) -> None:
        """Hang hooks for the layers and weights of ``work``.

        Args:
            work: what is wanted.
            on_layer: makes the hook of a layer, given its place in ``work.layers``, the layer and its activation.
            on_weight: makes the hook of a call, given the weight's place in ``work.weights``, the layer, the module
                that is called and its input, samples along dimension 0.
        """
        self._on_layer, self._on_weight, self._axes = on_layer, on_weight, work.axes
        self._place = {name: i for i, name in enumerate(work.layers)}
        self._weight_place = {name: i for i, weight in enumerate(work.weights) for name in weight.calls}

    def __call__(self, layer: Layer, call: Call, value: Tensor) -> None:
        """Watch one activation."""
        if layer.name in self._place:
            value.register_hook(self._on_layer(self._place[layer.name], layer, value))  # type: ignore[no-untyped-call]
        if layer.name in self._weight_place and call.module is not None and call.input is not None:
            given = call.input.movedim(self._axes[layer.name].dim, 0)
            hook = self._on_weight(self._weight_place[layer.name], layer, call.module, given)
            value.register_hook(hook)  # type: ignore[no-untyped-call]


def stack_results(found: Mapping[int, Tensor], shape: Sequence[int]) -> Tensor:
    """Return what the hooks have stored, float64 on the CPU; 0 without a gradient.

    Args:
        found: what each has stored, by its place along dimension 0.
        shape: of the result.
    """
    result = torch.zeros(*shape, dtype=torch.float64)
    if found:
        result[list(found)] = torch.stack(list(found.values())).double().cpu()
    return result


def send_back(outputs: Sequence[Tensor], roots: Sequence[Any], seeds: Sequence[Tensor], *, keep: bool) -> None:
    """Run one backward pass past the hooks; the gradients at its end are dropped.

    Args:
        outputs: the network's outputs.
        roots: where the pass shall end.
        seeds: a gradient for each output.
        keep: keep the graph for another pass.

    Raises:
        ModelError: the network overwrites what its gradient needs.
    """
    starts = [(z, s) for z, s in zip(outputs, seeds, strict=True) if z.requires_grad]
    z, s = zip(*starts, strict=True)
    try:
        torch.autograd.grad(z, tuple(roots), s, retain_graph=keep, allow_unused=True)
    except RuntimeError as error:
        if "modified by an inplace operation" not in str(error):
            raise
        raise ModelError(
            "the network writes over an activation that its own gradient needs, so torch cannot go backward through "
            f"it, in training neither ({first_line(error).partition(':')[0]}): "
            "write there without in-place operations"
        ) from error
