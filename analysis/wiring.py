"""Which layer feeds which, read off the autograd graph: the same for traced networks and for all others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor
from torch.autograd.graph import Node


def wiring(layers: Mapping[str, Node | None]) -> dict[str, tuple[str, ...]]:
    """Find the layers that each layer reads, with no other layer in between.

    Args:
        layers: by name in the order of execution, the autograd node that made each activation.

    Returns:
        for each layer the names of its inputs, in the order of the arguments, each once. A layer that hands
        on another's tensor (dropout in eval mode) reads that layer.
    """
    made: dict[Node, str] = {}
    inputs: dict[str, tuple[str, ...]] = {}
    for name, node in layers.items():
        handed_on = node is not None and node in made
        inputs[name] = (made[node],) if node is not None and handed_on else _nearest(_sources(node), made)
        if node is not None:
            made[node] = name
    return inputs


def feeding(tensors: Sequence[Tensor], layers: Mapping[str, Node | None]) -> tuple[str, ...]:
    """Return the layers that ``tensors``, the outputs, come from, with no other layer in between."""
    made = {node: name for name, node in layers.items() if node is not None}
    return _nearest([t.grad_fn for t in tensors if t.grad_fn is not None], made)


def _sources(node: Node | None) -> list[Node]:
    return [] if node is None else [source for source, _ in node.next_functions if source is not None]


def _nearest(starts: Iterable[Node], made: Mapping[Node, str]) -> tuple[str, ...]:
    """Return the layers met first on every way back from ``starts``."""
    found: dict[str, None] = {}
    waiting, seen = list(starts)[::-1], set[Node]()
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        if node in made:
            found[made[node]] = None
        else:
            waiting.extend(_sources(node)[::-1])
    return tuple(found)
