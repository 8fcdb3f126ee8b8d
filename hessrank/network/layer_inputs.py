"""Finds the inputs of each layer in the autograd graph, traced or not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor
from torch.autograd.graph import Node

AutogradOutput = tuple[Node, int]
"""An autograd node and which of its outputs."""


def find_autograd_output(value: Tensor, node: Node | None) -> AutogradOutput | None:
    """Return the autograd node that made ``value``, and which of its outputs.

    An in-place operation may have changed ``value.grad_fn`` since.
    """
    return None if node is None else (node, value.output_nr)


def find_inputs(made_by: Mapping[str, AutogradOutput | None]) -> dict[str, tuple[str, ...]]:
    """Find the layers that each layer reads directly.

    Args:
        made_by: what made each layer's activation, by the layer's name, in the order of execution.

    Returns:
        for each layer the names of its inputs, in the order of the arguments, each once. A layer that hands
        on another's tensor (dropout in eval mode) reads that layer.
    """
    made: dict[AutogradOutput, str] = {}
    inputs: dict[str, tuple[str, ...]] = {}
    for name, source in made_by.items():
        handed_on = source is not None and source in made
        inputs[name] = (
            (made[source],) if source is not None and handed_on else _find_nearest(_find_sources(source), made)
        )
        if source is not None:
            made[source] = name
    return inputs


def find_output_layers(tensors: Sequence[Tensor], made_by: Mapping[str, AutogradOutput | None]) -> tuple[str, ...]:
    """Return the layers that the outputs come from directly."""
    made = {source: name for name, source in made_by.items() if source is not None}
    return _find_nearest([s for t in tensors if (s := find_autograd_output(t, t.grad_fn)) is not None], made)


def _find_sources(source: AutogradOutput | None) -> list[AutogradOutput]:
    return [] if source is None else [(node, nr) for node, nr in source[0].next_functions if node is not None]


def _find_nearest(starts: Iterable[AutogradOutput], made: Mapping[AutogradOutput, str]) -> tuple[str, ...]:
    """Return the layers that are met first on every way back from ``starts``."""
    found: dict[str, None] = {}
    waiting, seen = list(starts)[::-1], set[AutogradOutput]()
    while waiting:
        source = waiting.pop()
        if source in seen:
            continue
        seen.add(source)
        if source in made:
            found[made[source]] = None
        else:
            waiting.extend(_find_sources(source)[::-1])
    return tuple(found)
