"""Finds masked scores, which a softmax shall not see (-inf, -10 000, …).

Such a value is no part of a range, has no rounding error, and lies on no grid: whoever looks at an activation leaves
it out, by the one number ``masked`` of its :class:`~hessrank.network.layer_facts.SampleAxis`, up to which values are
masked. A value is masked

- wherever it stands, if it is about the least number there is (:data:`LEAST`);
- on its way to a softmax, a maximum or a sigmoid, if it is below :data:`FAR`;
- on its way to a softmax, if that gives it no weight (its exponential is 0 in floating point) behind something that
  applies masks: a selection, or a sum with what is no layer or is masked itself;

and if what is masked lies farther below the rest than the rest is wide: the scores before the mask is applied, and
those of a softmax that is only very sure, are no masks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, fx

from hessrank.network.layer_names import Layer, node_kind
from hessrank.network.network import Network
from hessrank.network.walks.call import Call

LEAST = -1e30
FAR = -1000.0

_SOFTMAXES = frozenset("softmax Softmax Softmax2d".split())
_LOG_SOFTMAXES = frozenset("log_softmax LogSoftmax".split())
_BLIND = frozenset("logsumexp max amax sigmoid Sigmoid exp logsigmoid LogSigmoid".split())  # to what is far below
_READERS = _SOFTMAXES | _LOG_SOFTMAXES | _BLIND
# What may stand between a mask and the softmax: one value makes one value, and a large negative one stays so.
_ELEMENTWISE = frozenset(
    """
    add add_ iadd sub sub_ isub mul mul_ imul div div_ truediv itruediv where masked_fill masked_fill_ maximum
    minimum clamp clamp_ clamp_min clip nan_to_num Dropout dropout Identity float to type type_as view reshape
    view_as reshape_as flatten unflatten permute transpose squeeze unsqueeze contiguous clone expand expand_as
    getitem movedim swapaxes Flatten Unflatten
    """.split()
)
_FILLS = frozenset("masked_fill masked_fill_ where".split())
_MASKING = _FILLS | frozenset("add add_ iadd sub sub_ isub maximum max minimum".split())


class JudgedScores(NamedTuple):
    """A layer's scores, and which of them the softmax does not see.

    Attributes:
        layer: the layer's name.
        value: its scores.
        masked: the largest masked one; None if none is.
    """

    layer: str
    value: Tensor
    masked: float | None


class ScoreWatch:
    """Keeps scores until the layer that reads them tells which are masked."""

    def __init__(self, network: Network, without_padding: Callable[[str, Tensor, bool], Tensor]) -> None:
        """Find the layers that lead to nothing but a softmax or the like.

        Args:
            network: the network.
            without_padding: returns the elements of a layer's scores that are no padding, in one dimension. If its
                last argument is true, padding stays along the last dimension of positions, which masks are for.
        """
        self._without_padding = without_padding
        self._before = score_layers(network)
        self._watched = {name for names in self._before.values() for name in names}
        self._kind = {layer.name: layer.kind for layer in network.layers}
        self._inputs = network.inputs
        self._kept: dict[str, Tensor] = {}
        self._masked: set[str] = set()

    def keep(self, layer: Layer, value: Tensor) -> bool:
        """Keep a layer's value if it is a score; return whether it is."""
        if layer.name not in self._watched:
            return False
        self._kept[layer.name] = value.detach()
        return True

    def judge(self, layer: Layer, call: Call, value: Tensor) -> Iterator[JudgedScores]:
        """Yield the scores that ``layer`` was made of, once it is there; each once."""
        names = [name for name in self._before.get(layer.name, ()) if name in self._kept]
        unseen = _find_unseen(layer.kind, call.input, value) if names and call.input is not None else None
        for name in names:
            scores, inputs = self._kept.pop(name), self._inputs[name]
            applies_mask = self._kind[name] in _MASKING and len(inputs) == 1
            may_mask = applies_mask or not self._masked.isdisjoint(inputs)  # or hands a masked value on
            counted = self._without_padding(name, scores, may_mask)
            count = int((counted <= FAR).sum())
            if may_mask and unseen is not None and unseen.numel() == scores.numel():
                count = max(count, int(self._without_padding(name, unseen.reshape(scores.shape), may_mask).sum()))
            masked = _find_largest_masked(counted, count)
            if masked is not None:
                self._masked.add(name)
            yield JudgedScores(name, scores, masked)

    def take_left(self) -> Iterator[JudgedScores]:
        """Yield the scores that nothing read."""
        for name in tuple(self._kept):
            yield JudgedScores(name, self._kept.pop(name), None)


def score_layers(network: Network) -> dict[str, tuple[str, ...]]:
    """Return the layers that lead to each softmax, maximum or sigmoid only.

    They lead there element by element, and to nothing else.
    """
    kind = {layer.name: layer.kind for layer in network.layers}
    readers: dict[str, list[str]] = {name: [] for name in kind}
    for name, sources in network.inputs.items():
        for source in sources:
            readers[source].append(name)
    ends: dict[str, frozenset[str]] = {}  # the softmaxes that a layer leads to, if to nothing else
    for layer in reversed(network.layers):
        found = [
            frozenset({reader}) if kind[reader] in _READERS else ends.get(reader, frozenset())
            for reader in readers[layer.name]
            if kind[reader] in _READERS or kind[reader] in _ELEMENTWISE
        ]
        only = len(found) == len(readers[layer.name]) and all(found) and layer.name not in network.outputs
        if found and only:
            ends[layer.name] = frozenset().union(*found)
    return {
        end: tuple(layer.name for layer in network.layers if end in ends.get(layer.name, ()))
        for end in {end for names in ends.values() for end in names}
    }


def masking_fills(network: Network) -> set[str]:
    """Return the layers that set values to a masking number.

    It counts whether or not any sample shows it.
    """
    fills = {n: node for n, node in network.nodes.items() if n not in network.inside and node_kind(node) in _FILLS}
    return {
        name
        for name, node in fills.items()
        if any(_is_far(network, argument) for argument in (*node.args, *node.kwargs.values()))
    }


def without_masked(value: Tensor, masked: float | None) -> Tensor:
    """Return ``value`` with 0 for masked scores, which no grid holds.

    Args:
        value: an activation.
        masked: up to where its values are masked; None where nothing is.
    """
    return value if masked is None else torch.where(value <= masked, 0.0, value)


def _find_unseen(kind: str, scores: Tensor, value: Tensor) -> Tensor:
    """Return which scores have no part in what was made of them."""
    unseen = scores <= FAR
    if kind in _SOFTMAXES:
        unseen |= value < torch.finfo(value.dtype).tiny
    elif kind in _LOG_SOFTMAXES:
        unseen |= value.exp() < torch.finfo(value.dtype).tiny
    return unseen


def _find_largest_masked(scores: Tensor, count: int) -> float | None:
    """Return the ``count``-th smallest score if it is masked; else None.

    It is if it lies farther below the next one than that lies below the largest.
    """
    if not count:
        return None
    flat = scores.nan_to_num(neginf=torch.finfo(scores.dtype).min)
    if count == len(flat):
        return float(flat.max())
    masked, lowest, highest = (float(v) for v in (*(flat.kthvalue(k)[0] for k in (count, count + 1)), flat.max()))
    return masked if lowest - masked > highest - lowest else None


def _is_far(network: Network, argument: object) -> bool:
    """Return whether an argument is a number, or holds one, that masks."""
    if isinstance(argument, fx.Node) and argument.op == "get_attr":
        owner, _, leaf = str(argument.target).rpartition(".")
        argument = getattr(network.model.get_submodule(owner), leaf, None)
        argument = float(argument) if isinstance(argument, Tensor) and argument.numel() == 1 else None
    return isinstance(argument, int | float) and argument <= FAR
