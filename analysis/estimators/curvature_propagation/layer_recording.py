"""Records a network as separate layers, each a function of the layers it reads.

Autograd knows a network as a whole. Here every layer's activation is cut off from what made it. Where two paths from
one layer meet in a product, all between stays one function (:mod:`coupled_regions`), and its inner layers are
separated on a second recording.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.autograd.graph import Node as Operation
from torch.utils._pytree import tree_leaves

from hessrank.analysis.estimators.curvature_propagation.coupled_regions import Region, find_regions
from hessrank.analysis.estimators.curvature_propagation.layer_functions import LayerFunction, RecordedLayers
from hessrank.data.batch import Batch
from hessrank.network.curved_layers import is_curved
from hessrank.network.double_backward import allow_double_backward
from hessrank.network.layer_names import Layer
from hessrank.network.network import Network
from hessrank.network.walks.call import Call


@dataclass(frozen=True)
class Recording:
    """A network recorded as separate layers.

    Attributes:
        recorded: the layers from ``first`` to ``last``.
        output: what the network returned; of layers behind ``last`` autograd knows the graph.
        ends: the layers of ``recorded`` that ``output`` depends on without another of them in between.
        tail_curved: whether the way from ``ends`` to the output is curved.
    """

    recorded: RecordedLayers
    output: Any
    ends: tuple[int, ...]
    tail_curved: bool


def record(network: Network, batch: Batch, region: Region, first: int) -> Recording:
    """Run ``network`` on ``batch`` and separate the layers of ``region``.

    Each depth of regions takes one more run.

    Args:
        network: the network.
        batch: the samples.
        region: the layers wanted, as :meth:`Layout.region` groups them.
        first: the first of them; what lies before is constant.
    """
    by_depth: dict[int, list[Region]] = {}
    for depth, one in region.nested():
        by_depth.setdefault(depth, []).append(one)
    recorded: dict[int, RecordedLayers] = {}
    leaves: set[int] = set()
    output: Any = None
    ends: tuple[int, ...] = ()
    tail_curved = False
    for depth, regions in by_depth.items():
        leaves |= {layer for one in regions for layer in one.layers}
        last = None if depth == 0 else max(int(one.exit or 0) for one in regions)
        steps, returned = _record_steps(network, batch, leaves, first, last)
        places = {id(step.leaf): layer for layer, step in steps.items()}
        if depth == 0:
            output, (read, tail_curved) = returned, _find_sources(returned, places)
            ends = tuple(read)
        for one in regions:
            recorded[id(one)] = _collect_layers(one, steps, places)
    for _, one in region.nested():
        recorded[id(one)].inner = {i.exit: recorded[id(i)] for i in one.inner if i.exit is not None}
    return Recording(recorded[id(region)], output, ends, tail_curved)


@dataclass(frozen=True)
class Layout:
    """How a network's layers are connected.

    Attributes:
        inputs: for each layer, by its place in the order of execution, the layers it reads.
        curved: the layers that are no piecewise linear function of their inputs.
        outputs: the layers that the output is made of.
    """

    inputs: Mapping[int, tuple[int, ...]]
    curved: frozenset[int]
    outputs: tuple[int, ...]

    @classmethod
    def of(cls, network: Network, batch: Batch) -> Layout:
        """Find the connections of the whole network in a run on ``batch``."""
        everything = Region(tuple(range(len(network.layers))), None, frozenset(), ())
        found = record(network, batch, everything, 0)
        steps = found.recorded.steps
        curved = frozenset(layer for layer, step in steps.items() if step.curved)
        return cls({layer: step.inputs for layer, step in steps.items()}, curved, found.ends)

    def region(self, first: int, last: int) -> Region:
        """Return the layers ``first`` to ``last``, with regions where inputs are coupled."""
        return find_regions(range(first, last + 1), self.inputs, self.curved, self.find_ends(last))

    def find_ends(self, last: int) -> list[int]:
        """Return the layers up to ``last`` that something behind it reads."""
        read = {source for layer, sources in self.inputs.items() if layer > last for source in sources}
        return sorted(layer for layer in read.union(self.outputs) if layer <= last)


def _collect_layers(region: Region, steps: Mapping[int, LayerFunction], places: Mapping[int, int]) -> RecordedLayers:
    members = set(region.layers)
    held = {}
    for layer in (*region.layers, *([] if region.exit is None else [region.exit])):
        step = steps[layer]
        inputs, step.curved = _find_sources(step.out, places)
        step.inputs = tuple(i for i in inputs if i in members)
        step.leaves = tuple(steps[i].leaf for i in step.inputs)
        step.coupled = layer in region.coupled
        held[layer] = step
    return RecordedLayers(held, region.exit)


class _StopRun(BaseException):
    """Stops a run of a network of which only the beginning is needed.

    It is no Exception, so that code that handles errors of the network lets it pass.
    """


def _record_steps(
    network: Network, batch: Batch, leaves: Collection[int], first: int, last: int | None
) -> tuple[dict[int, LayerFunction], Any]:
    """Return the steps of all ``leaves``, and the output.

    The run stops at ``last``, if given, and has no output then.
    """
    steps: dict[int, LayerFunction] = {}

    def tap(layer: Layer, call: Call, value: Tensor) -> Tensor | None:
        place = layer.execution_index
        if place < first:
            return value.detach()
        if place not in leaves:
            return None
        step = LayerFunction(place, value, value.detach().requires_grad_(), call)
        steps[place] = step
        if place == last:
            raise _StopRun
        return step.leaf

    with allow_double_backward():
        try:
            output = network.run(batch, tap, differentiable=True).output
        except _StopRun:
            output = None
    return steps, output


def _find_sources(values: Any, places: Mapping[int, int]) -> tuple[list[int], bool]:
    """Return the layers that ``values`` depend on, and whether it is nonlinearly."""
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
