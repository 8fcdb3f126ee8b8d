"""Layers as functions of their inputs; vectors are sent back layer by layer.

Vectors can be added to on the way (curvature propagation), stopped anywhere, or started in the middle.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from hessrank.network.walks.call import Call

Pair = tuple[Tensor, Tensor]
"""The two vectors that are sent back together, in the shape of an activation."""

Injection = Callable[["LayerFunction"], Sequence[Pair | None]]
"""What a curved layer adds to the pair that arrives at each of its inputs; None for nothing."""


@dataclass(eq=False)
class LayerFunction:
    """One layer as a function of the layers of its region that it reads.

    Attributes:
        layer: its place in the order of execution.
        out: its activation, with the graph back to ``leaves``.
        leaf: the same, as what follows reads it.
        call: the call that made it.
        inputs: the layers that it reads.
        leaves: their activations.
        curved: whether it is curved; certain only after :meth:`RecordedLayers.differentiate`.
        coupled: whether its Hessian counts as a whole, and not block by block.
        slopes: gradient of ⟨g, out⟩ with respect to each leaf, recorded; g is the loss's gradient at ``out``.
    """

    layer: int
    out: Tensor
    leaf: Tensor
    call: Call
    inputs: tuple[int, ...] = ()
    leaves: tuple[Tensor, ...] = ()
    curved: bool = False
    coupled: bool = False
    slopes: tuple[Tensor | None, ...] = ()

    def back(self, vector: Tensor) -> list[Tensor]:
        """Return Jᵀ ``vector`` for each input."""
        found = torch.autograd.grad(self.out, self.leaves, vector, retain_graph=True, allow_unused=True)
        return fill_missing(found, self.leaves)

    def hessian_times(self, w: Sequence[Tensor]) -> list[Tensor | None]:
        """Return the Hessian of ⟨g, out⟩ times ``w`` for each input; None where it is 0."""
        if not self.coupled:
            return [
                _multiply_by_hessian([slope], [leaf], [v])[0]
                for slope, leaf, v in zip(self.slopes, self.leaves, w, strict=True)
            ]
        return _multiply_by_hessian(self.slopes, self.leaves, w)

    def differentiate(self, slope: Tensor) -> list[Tensor]:
        """Return the loss's gradient at each input, given that at ``out``.

        The gradient stays recorded where the layer is curved.
        """
        found = torch.autograd.grad(
            self.out, self.leaves, slope, create_graph=self.curved, retain_graph=True, allow_unused=True
        )
        self.slopes = tuple(part if part is not None and part.requires_grad else None for part in found)
        self.curved = any(part is not None for part in self.slopes)
        return [part.detach() for part in fill_missing(found, self.leaves)]


def fill_missing(found: Sequence[Tensor | None], like: Sequence[Tensor]) -> list[Tensor]:
    """Replace None by zeros of the shape of ``like`` in what autograd returned."""
    return [torch.zeros_like(x) if part is None else part for part, x in zip(found, like, strict=True)]


def _multiply_by_hessian(
    slopes: Sequence[Tensor | None], variables: Sequence[Tensor], w: Sequence[Tensor]
) -> list[Tensor | None]:
    known = [(slope, v) for slope, v in zip(slopes, w, strict=True) if slope is not None]
    if not known:
        return [None] * len(variables)
    outputs, vectors = zip(*known, strict=True)
    return list(torch.autograd.grad(outputs, variables, vectors, retain_graph=True, allow_unused=True))


@dataclass(eq=False)
class RecordedLayers:
    """The recorded layers of one region, and the regions inside it by their exits.

    Attributes:
        steps: the region's layers, and its exit, by their places.
        exit: the exit; None for the whole.
        inner: those of the inner regions, by exit.
    """

    steps: dict[int, LayerFunction]
    exit: int | None
    inner: dict[int, RecordedLayers] = field(default_factory=dict)

    def differentiate(self, slopes: Mapping[int, Tensor]) -> None:
        """Find the loss's gradient at every layer, and record it where layers are curved.

        Args:
            slopes: the gradient at the layers where it is known: those that something outside reads.
        """
        waiting = dict(slopes)
        for layer in sorted(self.steps, reverse=True):
            slope = waiting.pop(layer, None)
            step = self.steps[layer]
            if slope is None:
                step.curved = False  # nothing depends on it
                continue
            if layer in self.inner:
                self.inner[layer].differentiate({layer: slope})
            if step.inputs:
                _add_parts(waiting, step.inputs, step.differentiate(slope))

    def send_back(
        self, seeds: Mapping[int, Pair], inject: Injection | None, visit: Callable[[LayerFunction, Pair], None]
    ) -> None:
        """Send pairs of vectors back through all layers.

        Args:
            seeds: where they start.
            inject: what curved layers add to them; None adds nothing.
            visit: shown each layer, in an inner region or not, with the pair that has arrived there.
        """
        first = {layer: one for layer, (one, _) in seeds.items()}
        second = {layer: other for layer, (_, other) in seeds.items()}
        for layer in sorted(self.steps, reverse=True):
            if layer not in first:
                continue
            pair, step = (first.pop(layer), second.pop(layer)), self.steps[layer]
            if layer != self.exit:
                visit(step, pair)
            if layer in self.inner:
                self.inner[layer].send_back({layer: pair}, inject, visit)
            if step.inputs:
                ones, others = step.back(pair[0]), step.back(pair[1])
                if inject is not None and step.curved:
                    for i, more in enumerate(inject(step)):
                        if more is not None:
                            ones[i], others[i] = ones[i] + more[0], others[i] + more[1]
                _add_parts(first, step.inputs, ones)
                _add_parts(second, step.inputs, others)

    def all_steps(self) -> list[LayerFunction]:
        """Return the steps of this region and of all regions inside it."""
        return [*self.steps.values(), *(step for recorded in self.inner.values() for step in recorded.all_steps())]


def _add_parts(sums: dict[int, Tensor], places: Sequence[int], parts: Sequence[Tensor]) -> None:
    for place, part in zip(places, parts, strict=True):
        sums[place] = sums[place] + part if place in sums else part
