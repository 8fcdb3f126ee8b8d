"""A network taken apart into its layers, each a function of its own of the layers it reads.

Autograd knows a network as a whole. Here every layer's activation is cut off from what made it, so that vectors
can be sent back from layer to layer by hand: added to on the way (curvature propagation), stopped anywhere, or
started in the middle. Where two paths from one layer meet in a product, all between stays one function
(:mod:`regions`), and its inner layers are taken apart on a second recording.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node as Operation
from torch.utils._pytree import tree_leaves

from hessrank.analysis.estimators.curvature_propagation.coupled_regions import Region, find_regions
from hessrank.data.batch import Batch
from hessrank.network.curved_layers import is_curved
from hessrank.network.double_backward import allow_double_backward
from hessrank.network.layer_names import Layer
from hessrank.network.network import Network
from hessrank.network.walks.call import Call

Pair = tuple[Tensor, Tensor]
"""The two vectors that are sent back together, in the shape of an activation."""

Injection = Callable[["Step"], Sequence[Pair | None]]
"""What a curved layer adds to the pair that arrives at each of its inputs; None for nothing."""


@dataclass(eq=False)
class Step:
    """One layer as a function of the layers of its region that it reads.

    Attributes:
        layer: its place in the order of execution.
        out: its activation, with the graph back to ``leaves``.
        leaf: the same, as what follows reads it.
        call: the call that made it.
        inputs: the layers that it reads.
        leaves: their activations.
        curved: whether it bends. Known for certain once :meth:`Tape.differentiate` has been there.
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
        return filled(found, self.leaves)

    def hessian_times(self, w: Sequence[Tensor]) -> list[Tensor | None]:
        """Return the Hessian of ⟨g, out⟩ times ``w``, in the shapes of the inputs; None where it is 0."""
        if not self.coupled:
            return [
                _derivative([slope], [leaf], [v])[0]
                for slope, leaf, v in zip(self.slopes, self.leaves, w, strict=True)
            ]
        return _derivative(self.slopes, self.leaves, w)

    def differentiate(self, slope: Tensor) -> list[Tensor]:
        """Return the loss's gradient at each input, given that at ``out``; keep it recorded where the layer bends."""
        found = torch.autograd.grad(
            self.out, self.leaves, slope, create_graph=self.curved, retain_graph=True, allow_unused=True
        )
        self.slopes = tuple(part if part is not None and part.requires_grad else None for part in found)
        self.curved = any(part is not None for part in self.slopes)
        return [part.detach() for part in filled(found, self.leaves)]


def filled(found: Sequence[Tensor | None], like: Sequence[Tensor]) -> list[Tensor]:
    """Return what autograd found, with zeros of the shapes of ``like`` where nothing depends on them."""
    return [torch.zeros_like(x) if part is None else part for part, x in zip(found, like, strict=True)]


def _derivative(
    slopes: Sequence[Tensor | None], variables: Sequence[Tensor], w: Sequence[Tensor]
) -> list[Tensor | None]:
    known = [(slope, v) for slope, v in zip(slopes, w, strict=True) if slope is not None]
    if not known:
        return [None] * len(variables)
    outputs, vectors = zip(*known, strict=True)
    return list(torch.autograd.grad(outputs, variables, vectors, retain_graph=True, allow_unused=True))


@dataclass(eq=False)
class Tape:
    """The steps of one region, and the tapes of the regions within it by their exits.

    Attributes:
        steps: the region's layers, and its exit, by their places.
        exit: the exit; None for the whole.
        inner: the tapes of the inner regions, by exit.
    """

    steps: dict[int, Step]
    exit: int | None
    inner: dict[int, Tape] = field(default_factory=dict)

    def differentiate(self, slopes: Mapping[int, Tensor]) -> None:
        """Find the loss's gradient at every layer, and record it where layers bend.

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
                _add(waiting, step.inputs, step.differentiate(slope))

    def send_back(
        self, seeds: Mapping[int, Pair], inject: Injection | None, visit: Callable[[Step, Pair], None]
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
                _add(first, step.inputs, ones)
                _add(second, step.inputs, others)

    def all_steps(self) -> list[Step]:
        """Return the steps of this tape and of all within, in an order of their own."""
        return [*self.steps.values(), *(step for tape in self.inner.values() for step in tape.all_steps())]


def _add(sums: dict[int, Tensor], places: Sequence[int], parts: Sequence[Tensor]) -> None:
    for place, part in zip(places, parts, strict=True):
        sums[place] = sums[place] + part if place in sums else part


@dataclass(frozen=True)
class Recording:
    """A network on tape.

    Attributes:
        tape: the layers from ``first`` to ``last``.
        output: what the network returned; of layers behind ``last`` autograd knows the graph.
        ends: the layers of the tape that ``output`` depends on without another of them in between.
        tail_curved: whether the way from ``ends`` to the output bends.
    """

    tape: Tape
    output: Any
    ends: tuple[int, ...]
    tail_curved: bool


def record(network: Network, batch: Batch, region: Region, first: int) -> Recording:
    """Run ``network`` on ``batch`` and take the layers of ``region`` apart; one more run for each depth of regions.

    Args:
        network: the network.
        batch: the samples.
        region: the layers wanted, as :meth:`Layout.region` groups them.
        first: the first of them; what lies before is constant.
    """
    by_depth: dict[int, list[Region]] = {}
    for depth, one in region.nested():
        by_depth.setdefault(depth, []).append(one)
    tapes: dict[int, Tape] = {}
    leaves: set[int] = set()
    output: Any = None
    ends: tuple[int, ...] = ()
    tail_curved = False
    for depth, regions in by_depth.items():
        leaves |= {layer for one in regions for layer in one.layers}
        last = None if depth == 0 else max(int(one.exit or 0) for one in regions)
        steps, returned = _run(network, batch, leaves, first, last)
        places = {id(step.leaf): layer for layer, step in steps.items()}
        if depth == 0:
            output, (read, tail_curved) = returned, _read(returned, places)
            ends = tuple(read)
        for one in regions:
            tapes[id(one)] = _tape(one, steps, places)
    for _, one in region.nested():
        tapes[id(one)].inner = {i.exit: tapes[id(i)] for i in one.inner if i.exit is not None}
    return Recording(tapes[id(region)], output, ends, tail_curved)


@dataclass(frozen=True)
class Layout:
    """How a network's layers hang together on tape.

    Attributes:
        inputs: for each layer, by its place in the order of execution, the layers it reads.
        curved: the layers that bend.
        outputs: the layers that the output is made of.
    """

    inputs: Mapping[int, tuple[int, ...]]
    curved: frozenset[int]
    outputs: tuple[int, ...]

    @classmethod
    def of(cls, network: Network, batch: Batch) -> Layout:
        """Look at the whole network, run on ``batch``."""
        everything = Region(tuple(range(len(network.layers))), None, frozenset(), ())
        found = record(network, batch, everything, 0)
        steps = found.tape.steps
        curved = frozenset(layer for layer, step in steps.items() if step.curved)
        return cls({layer: step.inputs for layer, step in steps.items()}, curved, found.ends)

    def region(self, first: int, last: int) -> Region:
        """Return the layers from ``first`` to ``last``, closed off where couplings make it necessary."""
        return find_regions(range(first, last + 1), self.inputs, self.curved, self.open_at(last))

    def open_at(self, last: int) -> list[int]:
        """Return the layers up to ``last`` that something behind it reads."""
        read = {source for layer, sources in self.inputs.items() if layer > last for source in sources}
        return sorted(layer for layer in read.union(self.outputs) if layer <= last)


def _tape(region: Region, steps: Mapping[int, Step], places: Mapping[int, int]) -> Tape:
    members = set(region.layers)
    held = {}
    for layer in (*region.layers, *([] if region.exit is None else [region.exit])):
        step = steps[layer]
        inputs, step.curved = _read(step.out, places)
        step.inputs = tuple(i for i in inputs if i in members)
        step.leaves = tuple(steps[i].leaf for i in step.inputs)
        step.coupled = layer in region.coupled
        held[layer] = step
    return Tape(held, region.exit)


class _Enough(BaseException):
    """Ends a run of a network of which only the beginning is wanted; no error, so that nobody explains it."""


def _run(
    network: Network, batch: Batch, leaves: Collection[int], first: int, last: int | None
) -> tuple[dict[int, Step], Any]:
    """Return the steps of all ``leaves``, and the output; no output if nothing behind ``last`` is wanted."""
    steps: dict[int, Step] = {}

    def tap(layer: Layer, call: Call, value: Tensor) -> Tensor | None:
        place = layer.execution_index
        if place < first:
            return value.detach()
        if place not in leaves:
            return None
        step = Step(place, value, value.detach().requires_grad_(), call)
        steps[place] = step
        if place == last:
            raise _Enough
        return step.leaf

    with allow_double_backward():
        try:
            output = network.run(batch, tap, differentiable=True).output
        except _Enough:
            output = None
    return steps, output


def _read(values: Any, places: Mapping[int, int]) -> tuple[list[int], bool]:
    """Return the layers that ``values`` are made of, in order, and whether by something curved."""
    tensors = [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]
    found, curved = set(), False
    waiting: list[Operation] = [t.grad_fn for t in tensors if t.grad_fn is not None]
    seen = set(waiting)
    while waiting:
        operation = waiting.pop()
        variable = getattr(operation, "variable", None)
        if variable is not None:
            found |= {places[id(variable)]} if id(variable) in places else set()
            continue
        curved = curved or is_curved(operation)
        before = {source for source, _ in operation.next_functions if source is not None} - seen
        seen |= before
        waiting.extend(before)
    return sorted(found), curved
