"""Leaves out padding: positions that only make sequences equally long.

A batch tells them by a field ``attention_mask``, B×T, zero where there is padding. They are left out of

- the loss, in outputs B×T×… (:class:`Padded` goes to the losses in the place of a target);
- the ranges, the rounding errors and the number of elements of activations that keep positions apart, wherever those
  lie: seen by running one sample with a position less;
- the traces of such activations, though where the network heeds the mask hardly any gradient of what counts reaches
  what does not: only that of what is multiplied with padding, the attention paid to it, which is 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from hessrank.data.batch import Batch
from hessrank.errors import HessrankError
from hessrank.network.layer_names import Layer
from hessrank.network.network import Network
from hessrank.network.walks.call import Call

if TYPE_CHECKING:
    from hessrank.network.layer_facts import LayerFacts, SampleAxis
    from hessrank.network.sample_batches import SampleBatches

FIELD = "attention_mask"


class Padded(NamedTuple):
    """A target, and which positions of the output count.

    Attributes:
        values: what the output is compared with.
        real: B×T, true where there is no padding.
    """

    values: Any
    real: Tensor


def real_positions(batch: Batch) -> Tensor | None:
    """Return which positions of a batch are no padding, B×T of bool.

    None means that all count, or that nothing tells.
    """
    mask = _find_mask(batch)
    real = None if mask is None else mask != 0
    return None if real is None or bool(real.all()) else real


def _find_mask(batch: Batch) -> Tensor | None:
    whole = batch.args[0] if len(batch.args) == 1 and isinstance(batch.args[0], Mapping) else {}
    mask = batch.kwargs.get(FIELD, whole.get(FIELD))
    return mask if isinstance(mask, Tensor) and mask.ndim == 2 and mask.shape[0] == len(batch) else None


def counts_by_position(output: Tensor, real: Tensor | None) -> bool:
    """Return whether an output is B×T×…, so that its padding can be left out."""
    return real is not None and output.ndim >= 3 and output.shape[:2] == real.shape


def real_elements(value: Tensor, axis: SampleAxis, real: Tensor | None) -> Tensor | None:
    """Return which elements of an activation are no padding.

    The shape spreads to the activation's.

    Args:
        value: the activation.
        axis: where it keeps its samples, and their positions as :func:`find_positions` tells.
        real: which positions of the batch are no padding, B×T; None if all are.

    Returns:
        None if all elements count, as far as can be known.
    """
    if real is None or not axis.positions:
        return None
    found = torch.ones([1] * value.ndim, dtype=torch.bool, device=value.device)
    for position in axis.positions:
        shape = [1] * value.ndim
        if len(real) == 1 or position == axis.dim:  # B·T in one dimension
            kept = real.reshape(-1)
        else:
            kept = real.repeat_interleave(axis.repeat, dim=0)
            shape[axis.dim] = len(kept)
            kept = kept if axis.dim < position else kept.T
        shape[position] = value.shape[position]
        if kept.numel() != shape[position] * (shape[axis.dim] if axis.dim != position else 1):
            return None
        found = found & kept.reshape(shape).to(value.device)
    return found


def without_padding(value: Tensor, axis: SampleAxis, real: Tensor | None) -> Tensor:
    """Return an activation, or a gradient of it, with 0 where there is padding.

    Args:
        value: the activation.
        axis: where it keeps its samples and positions.
        real: which positions of the batch are no padding, B×T; None if all are.
    """
    counted = real_elements(value, axis, real)
    return value if counted is None else value * counted


def counted_elements(value: Tensor, axis: SampleAxis, real: Tensor | None) -> Tensor | None:
    """Return which elements count: neither padding nor masked scores.

    Args:
        value: the activation.
        axis: where it keeps its samples and positions, and up to where it is masked.
        real: which positions of the batch are no padding, B×T; None if all are.

    Returns:
        true where an element counts, of a shape that spreads to the activation's; None if all do.
    """
    unpadded = real_elements(value, axis, real)
    if axis.masked is None:
        return unpadded
    unmasked = value > axis.masked
    return unmasked if unpadded is None else unmasked & unpadded


def leave_out_padding(network: Network, batches: SampleBatches, facts: Mapping[str, LayerFacts]) -> Iterator[str]:
    """Note in ``facts`` where positions lie, and how many elements count.

    The number is the mean of the samples.

    Args:
        network: the network.
        batches: the samples.
        facts: their ``axis`` is told the positions, and their ``numel`` set.

    Yields:
        what a reader should know, a sentence each; nothing where there is no padding.
    """
    if _find_mask(batches.batch(0)) is None:
        return  # no need to read all samples
    masks = [_find_mask(batches.batch(index)) for index in range(len(batches))]
    shares = torch.tensor([1.0 if m is None else float((m != 0).double().mean()) for m in masks], dtype=torch.float64)
    lengths = torch.tensor([0 if m is None else m.shape[1] for m in masks])
    if bool((shares == 1).all()):
        return
    padded = int(shares.argmin())
    places = find_positions(network, batches.batch(padded), int(lengths[padded]))
    for name, positions in places.items():
        fact = facts[name]
        fact.axis = replace(fact.axis, positions=positions)
        counted = torch.tensor(fact.numels) * shares ** len(positions) if len(fact.numels) == len(shares) else None
        fact.numel = fact.numel if counted is None else float(counted.round().mean())
    padding = round(float(((1 - shares) * lengths).sum()))
    yield f"padding ({FIELD} is 0) is left out: {padding} of {int(lengths.sum())} positions"
    if not places:
        yield "the network takes no other length: padding counts in ranges, rounding errors and numel"


def find_positions(network: Network, sample: Batch, length: int) -> dict[str, tuple[int, ...]]:
    """Find the dimensions of positions by running a sample one position shorter.

    Args:
        network: the network.
        sample: a single sample.
        length: its number of positions.

    Returns:
        the dimensions of each layer that has any; nothing if the network does not run on the shorter sample.
    """
    shorter = sample.map(lambda t: t[:, :-1] if t.ndim > 1 and t.shape[1] == length else t)
    shapes: list[dict[str, torch.Size]] = []
    for batch in (sample, shorter):
        seen: dict[str, torch.Size] = {}

        def look(layer: Layer, call: Call, value: Tensor, seen: dict[str, torch.Size] = seen) -> None:
            seen[layer.name] = value.shape

        try:
            network.run(batch, look)
        except HessrankError:
            return {}
        shapes.append(seen)
    found = {name: _find_shortened_dims(shape, shapes[1].get(name), length) for name, shape in shapes[0].items()}
    return {name: positions for name, positions in found.items() if positions}


def _find_shortened_dims(shape: torch.Size, other: torch.Size | None, length: int) -> tuple[int, ...]:
    if other is None or len(other) != len(shape):
        return ()
    changed = tuple(d for d in range(len(shape)) if shape[d] != other[d])
    return changed if all(shape[d] == length and other[d] == length - 1 for d in changed) else ()
