"""Squared norms of every layer's gradient, one number a sample, while one backward pass goes by.

Nothing is kept: a gradient hook takes the norm and the gradient is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from hessrank.analysis.estimators.base import Estimates, Work, zeros
from hessrank.errors import ModelError
from hessrank.network.layer_facts import sample_norms
from hessrank.network.layer_names import Layer
from hessrank.network.padding import real_positions, without_padding
from hessrank.network.precision import run_backward, widen
from hessrank.network.walks.call import Call
from hessrank.network.weights import weight_gradients, weight_norms
from hessrank.text import first_line


def send_back(outputs: Sequence[Tensor], roots: Sequence[Tensor], seeds: Sequence[Tensor], *, keep: bool) -> None:
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


class GradientNorms:
    """A tap that hangs a hook on every activation; each backward pass then gives its squared norms."""

    def __init__(self, work: Work) -> None:
        """Prepare for the layers and weights of ``work``."""
        self._work, self._real = work, real_positions(work.batch)
        self._row = {name: i for i, name in enumerate(work.layers)}
        self._weight_row = {name: i for i, weight in enumerate(work.weights) for name in weight.calls}
        self._layer_norms: dict[int, Tensor] = {}  # these wait on the device until the pass is over
        self._weight_norms: dict[int, Tensor] = {}  # squared
        self._shared: dict[int, list[Tensor]] = {}  # gradients of weights that several calls contribute to

    def __call__(self, layer: Layer, call: Call, value: Tensor) -> None:
        """Watch one activation."""
        if layer.name in self._row:
            value.register_hook(self._layer_hook(layer))  # type: ignore[no-untyped-call]
        if layer.name in self._weight_row and call.module is not None and call.input is not None:
            value.register_hook(self._weight_hook(layer, call))  # type: ignore[no-untyped-call]

    def backward(
        self, outputs: list[Tensor], roots: tuple[Tensor, ...], seeds: list[Tensor], *, keep: bool
    ) -> Estimates:
        """Send ``seeds`` back from ``outputs`` (as :func:`send_back` does); return the squared norms passing by."""

        def send(scaled: list[Tensor], keeping: bool) -> Estimates:
            return self._sent(outputs, roots, scaled, keep=keeping)

        found, factor = run_backward(send, seeds, self._work.precision, Estimates.finite, keep=keep)
        return found * factor**-2

    def _sent(
        self, outputs: list[Tensor], roots: tuple[Tensor, ...], seeds: list[Tensor], *, keep: bool
    ) -> Estimates:
        self._layer_norms.clear()
        self._weight_norms.clear()
        send_back(outputs, roots, seeds, keep=keep)
        for row, gradients in self._shared.items():
            self._weight_norms[row] = torch.stack([torch.linalg.vector_norm(g) for g in gradients]).square()
        self._shared.clear()
        norms = self._gathered(self._layer_norms, len(self._work.layers))
        return Estimates(norms.square(), self._gathered(self._weight_norms, len(self._work.weights)))

    def _gathered(self, found: dict[int, Tensor], rows: int) -> Tensor:
        """Return what the hooks left, in order; a hook that no gradient reached leaves 0."""
        result = zeros(rows, self._work.batch)
        if found:
            result[list(found)] = torch.stack(list(found.values())).double().cpu()
        return result

    def nothing(self) -> Estimates:
        """Return zeros in the shape of the results."""
        work = self._work
        return Estimates(zeros(len(work.layers), work.batch), zeros(len(work.weights), work.batch))

    def _layer_hook(self, layer: Layer) -> Callable[[Tensor], None]:
        row, axis, count = self._row[layer.name], self._work.axes[layer.name], len(self._work.batch)

        def hook(slope: Tensor) -> None:
            slope = without_padding(widen(slope), axis, self._real)
            self._layer_norms[row] = sample_norms(slope, axis, count)

        return hook

    def _weight_hook(self, layer: Layer, call: Call) -> Callable[[Tensor], None]:
        row, axis, count = self._weight_row[layer.name], self._work.axes[layer.name], len(self._work.batch)
        shared = len(self._work.weights[row].calls) > 1
        module, given = call.module, call.input
        assert module is not None
        assert given is not None
        kept = given.movedim(axis.dim, 0)

        def hook(slope: Tensor) -> None:
            given, slope = widen((kept, slope.movedim(axis.dim, 0)))
            if not shared:
                self._weight_norms[row] = weight_norms(module, given, slope, count)
                return
            gradients = list(weight_gradients(module, given, slope, count))
            before = self._shared.get(row)
            self._shared[row] = (
                gradients if before is None else [a + b for a, b in zip(before, gradients, strict=True)]
            )

        return hook
