"""Takes the squared norm of every layer's gradient by sample in a backward pass.

Nothing is kept: a gradient hook takes the norm and the gradient is gone.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hessrank.analysis.estimators.activation_hooks import ActivationHooks, Hook, send_back, stack_results
from hessrank.analysis.estimators.base import Estimates, Work, zeros
from hessrank.network.layer_facts import sample_norms
from hessrank.network.layer_names import Layer
from hessrank.network.padding import real_positions, without_padding
from hessrank.network.precision import run_backward, widen
from hessrank.network.weights import weight_gradients, weight_norms


class GradientNorms:
    """Takes the squared norms of all gradients of a backward pass.

    Attributes:
        hooks: the tap that a network has to run with first.
    """

    def __init__(self, work: Work) -> None:
        """Take those of the layers and weights of ``work``."""
        self._work, self._real = work, real_positions(work.batch)
        self.hooks = ActivationHooks(work, self._layer_hook, self._weight_hook)
        self._layer_norms: dict[int, Tensor] = {}  # these wait on the device until the pass is over
        self._weight_norms: dict[int, Tensor] = {}  # squared
        self._shared: dict[int, list[Tensor]] = {}  # gradients of weights that several calls contribute to

    def backward(
        self, outputs: list[Tensor], roots: tuple[Tensor, ...], seeds: list[Tensor], *, keep: bool
    ) -> Estimates:
        """Send ``seeds`` back from ``outputs``; return the gradients' squared norms.

        The arguments are those of :func:`send_back`.
        """

        def send(scaled: list[Tensor], keeping: bool) -> Estimates:
            return self._send(outputs, roots, scaled, keep=keeping)

        found, factor = run_backward(send, seeds, self._work.precision, Estimates.is_finite, keep=keep)
        return found * factor**-2

    def _send(
        self, outputs: list[Tensor], roots: tuple[Tensor, ...], seeds: list[Tensor], *, keep: bool
    ) -> Estimates:
        self._layer_norms.clear()
        self._weight_norms.clear()
        send_back(outputs, roots, seeds, keep=keep)
        for row, gradients in self._shared.items():
            self._weight_norms[row] = torch.stack([torch.linalg.vector_norm(g) for g in gradients]).square()
        self._shared.clear()
        count = len(self._work.batch)
        norms = stack_results(self._layer_norms, (len(self._work.layers), count))
        return Estimates(norms.square(), stack_results(self._weight_norms, (len(self._work.weights), count)))

    def make_zeros(self) -> Estimates:
        """Return zeros in the shape of the results."""
        work = self._work
        return Estimates(zeros(len(work.layers), work.batch), zeros(len(work.weights), work.batch))

    def _layer_hook(self, place: int, layer: Layer, value: Tensor) -> Hook:
        axis, count = self._work.axes[layer.name], len(self._work.batch)

        def hook(slope: Tensor) -> None:
            slope = without_padding(widen(slope), axis, self._real)
            self._layer_norms[place] = sample_norms(slope, axis, count)

        return hook

    def _weight_hook(self, place: int, layer: Layer, module: nn.Module, kept: Tensor) -> Hook:
        axis, count = self._work.axes[layer.name], len(self._work.batch)
        shared = len(self._work.weights[place].calls) > 1

        def hook(slope: Tensor) -> None:
            given, slope = widen((kept, slope.movedim(axis.dim, 0)))
            if not shared:
                self._weight_norms[place] = weight_norms(module, given, slope, count)
                return
            gradients = list(weight_gradients(module, given, slope, count))
            before = self._shared.get(place)
            self._shared[place] = (
                gradients if before is None else [a + b for a, b in zip(before, gradients, strict=True)]
            )

        return hook
