"""Where a network begins and ends, and the sub-networks it consists of.

A tensor that enters or leaves the network is a boundary, also where an output is used further inside. What
hangs together without crossing a boundary is a sub-network: a two-stage network that returns the first
stage's picture too has two. Its ends are the weighted layers next to boundaries.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hessrank.quant.graph import Graph
from hessrank.quant.kinds import is_join, passes_grid_on


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


def sub_networks(graph: Graph) -> list[SubNetwork]:
    """Return the sub-networks in the order of execution; layers that only reshuffle a boundary are in none."""
    entries, exits = _entries(graph), _exits(graph)
    cut = set(graph.inputs) | set(graph.outputs) | _behind_exits(graph, exits)
    found = []
    for layers in _components(graph, cut):
        inside = set(layers)
        weighted = [name for name in layers if graph[name].weight is not None]
        if weighted:
            found.append(
                SubNetwork(
                    _common_prefix(weighted),
                    layers,
                    tuple(name for name in entries if name in inside),
                    tuple(name for name in exits if name in inside),
                )
            )
    return found


def before_last(graph: Graph, exit_layer: str) -> str | None:
    """Return the last layer but one: what the last weighted layer reads, seen through reshuffles.

    None if that is an input of the network.
    """
    node = graph[exit_layer]
    while node.inputs:
        node = graph[node.inputs[0]]
        if not passes_grid_on(node):
            break
    return None if node.kind == "input" or node.name == exit_layer else node.name


def _entries(graph: Graph) -> tuple[str, ...]:
    """Return the weighted layers that read a boundary, with nothing but weightless one-input layers in between."""
    found: set[str] = set()
    waiting = [*graph.inputs, *graph.outputs]
    while waiting:
        for name in graph.consumers[waiting.pop()]:
            if graph[name].weight is not None:
                found.add(name)
            elif len(graph[name].inputs) == 1:
                waiting.append(name)
    return tuple(name for name in graph.nodes if name in found)


def _exits(graph: Graph) -> tuple[str, ...]:
    """Return the weighted layers that make the outputs; of an addition or a gate, the latest one counts."""
    latest = _latest_weighted(graph)
    found: set[str] = set()
    seen: set[str] = set()
    waiting = list(graph.outputs)
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        node = graph[name]
        if node.weight is not None:
            found.add(name)
        elif is_join(node) or len(node.inputs) < 2:
            waiting.extend(node.inputs)
        else:
            waiting.append(max(node.inputs, key=lambda name: latest[name]))
    return tuple(name for name in graph.nodes if name in found)


def _latest_weighted(graph: Graph) -> dict[str, int]:
    """Return when the last weighted layer ran that each layer's tensor came through; -1 without one."""
    latest: dict[str, int] = {}
    for place, node in enumerate(graph.nodes.values()):
        before = max((latest[name] for name in node.inputs), default=-1)
        latest[node.name] = before if node.weight is None else place
    return latest


def _behind_exits(graph: Graph, exits: Iterable[str]) -> set[str]:
    """Return exits whose tensor reaches an output through weightless layers: the cut goes behind them."""
    return {name for name in exits if set(graph.consumers[name]) & set(graph.outputs)}


def _components(graph: Graph, cut: set[str]) -> list[tuple[str, ...]]:
    """Return what hangs together when nothing flows out of the layers in ``cut``."""
    part: dict[str, set[str]] = {name: {name} for name in graph.nodes}
    for node in graph.nodes.values():
        for source in node.inputs:
            if source not in cut and part[source] is not part[node.name]:
                merged = part[source] | part[node.name]
                part.update(dict.fromkeys(merged, merged))
    groups = {id(members): members for members in part.values()}
    order = list(graph.nodes)
    return [tuple(sorted(members, key=order.index)) for members in groups.values()]


def _common_prefix(names: Iterable[str]) -> str:
    paths = [name.split(".")[:-1] for name in names]
    common = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        common.append(parts[0])
    return ".".join(common)
