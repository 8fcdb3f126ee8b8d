"""Splits a network into the sub-networks between its inputs and outputs.

A tensor that enters or leaves the network is a boundary, also where an output is used further inside. What
hangs together without crossing a boundary is a sub-network: a two-stage network that returns the first
stage's picture too has two. Its ends are the weighted layers next to boundaries.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from hessrank.network.layer_names import CONCATENATIONS


class GraphNode(Protocol):
    """A layer: its name and kind, its inputs' names, its weight's name."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def kind(self) -> str: ...  # noqa: D102
    @property
    def inputs(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def weight(self) -> str | None: ...  # noqa: D102


class LayerGraph(Protocol):
    """All layers by name in the order of execution, and the outputs' names."""

    @property
    def nodes(self) -> Mapping[str, GraphNode]: ...  # noqa: D102
    @property
    def outputs(self) -> tuple[str, ...]: ...  # noqa: D102


@dataclass(frozen=True)
class RecordedNode:
    """A :class:`GraphNode` from a ranking's record."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    weight: str | None


@dataclass(frozen=True)
class RecordedGraph:
    """A :class:`LayerGraph` from a ranking's record."""

    nodes: Mapping[str, RecordedNode]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class SubNetwork:
    """A part with its own input or output.

    Attributes:
        name: what its weighted layers' names begin with (``DBF``); empty if they have nothing in common.
        layers: its layers, in the order of execution.
        entries: the weighted layers that read a boundary tensor.
        exits: the weighted layers that make one.
    """

    name: str
    layers: tuple[str, ...]
    entries: tuple[str, ...]
    exits: tuple[str, ...]


def recorded_sub_networks(graph: Mapping[str, Any] | None, kinds: Mapping[str, str]) -> list[SubNetwork]:
    """Return the sub-networks of a ranked network.

    Args:
        graph: of its record, ``ranking.info["graph"]``; None, as in tables without one, gives no sub-networks.
        kinds: of the layers, by name.
    """
    if not graph:
        return []
    nodes = {
        name: RecordedNode(name, kinds[name], tuple(facts["inputs"]), facts.get("weight"))
        for name, facts in graph["layers"].items()
    }
    return sub_networks(RecordedGraph(nodes, tuple(graph["outputs"])))


def sub_networks(graph: LayerGraph) -> list[SubNetwork]:
    """Return the sub-networks in the order of execution.

    Layers that only reshuffle a boundary are in none.
    """
    readers = _find_readers(graph)
    inputs = [name for name, node in graph.nodes.items() if node.kind == "input"]
    entries, exits = _find_entries(graph, readers, [*inputs, *graph.outputs]), _find_exits(graph)
    behind_exits = {name for name in exits if set(readers[name]) & set(graph.outputs)}  # the cut goes behind them
    found = []
    for layers in _find_components(graph, {*inputs, *graph.outputs, *behind_exits}):
        inside = set(layers)
        weighted = [name for name in layers if graph.nodes[name].weight is not None]
        if weighted:
            found.append(
                SubNetwork(
                    _find_common_prefix(weighted),
                    layers,
                    tuple(name for name in entries if name in inside),
                    tuple(name for name in exits if name in inside),
                )
            )
    return found


def _find_readers(graph: LayerGraph) -> Mapping[str, list[str]]:
    """Return the names of the layers that read each layer."""
    readers: dict[str, list[str]] = {name: [] for name in graph.nodes}
    for node in graph.nodes.values():
        for source in node.inputs:
            readers[source].append(node.name)
    return readers


def _find_entries(graph: LayerGraph, readers: Mapping[str, list[str]], boundaries: list[str]) -> tuple[str, ...]:
    """Return the weighted layers that read a boundary.

    Nothing but layers with one input and no weight lies in between.
    """
    found: set[str] = set()
    waiting = list(boundaries)
    while waiting:
        for name in readers[waiting.pop()]:
            if graph.nodes[name].weight is not None:
                found.add(name)
            elif len(graph.nodes[name].inputs) == 1:
                waiting.append(name)
    return tuple(name for name in graph.nodes if name in found)


def _find_exits(graph: LayerGraph) -> tuple[str, ...]:
    """Return the weighted layers that make the outputs.

    Of an addition or a gate, the latest one counts.
    """
    latest = _find_latest_weighted(graph)
    found: set[str] = set()
    seen: set[str] = set()
    waiting = list(graph.outputs)
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        node = graph.nodes[name]
        if node.weight is not None:
            found.add(name)
        elif node.kind in CONCATENATIONS or len(node.inputs) < 2:
            waiting.extend(node.inputs)
        else:
            waiting.append(max(node.inputs, key=lambda name: latest[name]))
    return tuple(name for name in graph.nodes if name in found)


def _find_latest_weighted(graph: LayerGraph) -> dict[str, int]:
    """Return when the last weighted layer before each tensor ran; -1 without one."""
    latest: dict[str, int] = {}
    for place, node in enumerate(graph.nodes.values()):
        before = max((latest[name] for name in node.inputs), default=-1)
        latest[node.name] = before if node.weight is None else place
    return latest


def _find_components(graph: LayerGraph, cut: set[str]) -> list[tuple[str, ...]]:
    """Return the connected parts when nothing leaves the layers in ``cut``."""
    part: dict[str, set[str]] = {name: {name} for name in graph.nodes}
    for node in graph.nodes.values():
        for source in node.inputs:
            if source not in cut and part[source] is not part[node.name]:
                merged = part[source] | part[node.name]
                part.update(dict.fromkeys(merged, merged))
    groups = {id(members): members for members in part.values()}
    order = list(graph.nodes)
    return [tuple(sorted(members, key=order.index)) for members in groups.values()]


def _find_common_prefix(names: Iterable[str]) -> str:
    paths = [name.split(".")[:-1] for name in names]
    common = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        common.append(parts[0])
    return ".".join(common)
