"""What can be known of the layers without gradients: shapes, MACs, ranges, where the samples lie."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from hessrank.analysis.batches import Batch, single_samples
from hessrank.analysis.calls import Call
from hessrank.analysis.layers import Layer
from hessrank.analysis.masks import LEAST, Judged, ScoreWatch, masking_fills
from hessrank.analysis.network import Network
from hessrank.analysis.outputs import output_tensors
from hessrank.analysis.padding import real_elements, real_positions
from hessrank.errors import ModelError

if TYPE_CHECKING:
    from hessrank.analysis.feed import Feed


@dataclass(frozen=True)
class SampleAxis:
    """Where an activation keeps its samples: sample i holds entries [i·repeat, (i+1)·repeat) of dimension ``dim``.

    Along ``positions`` it keeps those of padded sequences. Values up to ``masked`` are masked scores; None where
    there are none.
    """

    dim: int = 0
    repeat: int = 1
    positions: tuple[int, ...] = ()
    masked: float | None = None

    def rows(self, value: Tensor, batch_size: int) -> Tensor:
        """Return ``value`` as one row a sample, batch_size × elements."""
        if batch_size == 1:
            return value.reshape(1, -1)
        return value.movedim(self.dim, 0).reshape(batch_size, -1)

    def from_rows(self, rows: Tensor, like: Tensor) -> Tensor:
        """Return ``rows``, one a sample, in the shape of the activation ``like``."""
        moved = like.movedim(self.dim, 0) if like.ndim else like
        return rows.reshape(moved.shape).movedim(0, self.dim) if like.ndim else rows.reshape(())


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
    """Return which elements of an activation count: no padding, and no masked score.

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


def sample_norms(value: Tensor, axis: SampleAxis, batch_size: int) -> Tensor:
    """Return the 2-norm of each sample's part of ``value``, in its precision, shape (batch_size,)."""
    if batch_size == 1:
        return torch.linalg.vector_norm(value).reshape(1)  # type: ignore[no-any-return]
    return torch.linalg.vector_norm(axis.rows(value, batch_size), dim=1)  # type: ignore[no-any-return]


def _attention_flops(query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: Any, **__: Any) -> int:
    return 2 * math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _recurrent_flops(
    given: Sequence[int], weight: Sequence[int], recurrent: Sequence[int], *_: Any, **__: Any
) -> int:
    return 2 * given[0] * given[1] * (math.prod(weight) + math.prod(recurrent))


_MORE_FLOPS = {  # kernels of the CPU that torch's counter does not know
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
    torch.ops.aten.mkldnn_rnn_layer: _recurrent_flops,
}


@dataclass
class Facts:
    """What is known of one layer.

    Attributes:
        shapes: of each sample's activation, without the batch dimension; () where the layer does not run.
        numels: each sample's number of elements.
        macs: multiply-accumulates of the call that makes it, for one sample; the mean over the samples.
        numel: number of elements; without padding, the mean over the samples.
        low: smallest finite value over the data.
        high: largest finite value over the data.
        axis: where the samples lie in it.
    """

    shapes: tuple[tuple[int, ...], ...]
    numels: tuple[int, ...]
    macs: float
    numel: float = field(init=False)
    low: float = math.inf
    high: float = -math.inf
    axis: SampleAxis = SampleAxis()

    def __post_init__(self) -> None:
        self.numel = sum(self.numels) / len(self.numels)

    @property
    def shape(self) -> tuple[int, ...]:
        """The largest of the shapes."""
        return max(self.shapes, key=math.prod)

    def mask(self, value: float) -> None:
        """Count values up to ``value``, and up to those counted before, as masked scores."""
        before = -math.inf if self.axis.masked is None else self.axis.masked
        self.axis = replace(self.axis, masked=max(before, value))


@dataclass(frozen=True)
class Look:
    """What one sample shows of the sizes in a network.

    Attributes:
        shapes: of each layer's activation, without the batch dimension.
        numels: its number of elements.
        macs: multiply-accumulates of the call that makes it.
        outputs: how many elements the network returns.
    """

    shapes: dict[str, tuple[int, ...]]
    numels: dict[str, int]
    macs: dict[str, int]
    outputs: int


def _look_at(network: Network, one: Batch) -> Look:
    look = Look({}, {}, {}, 0)
    counter = FlopCounterMode(display=False, custom_mapping=_MORE_FLOPS)
    counted = 0

    def tap(layer: Layer, call: Call, value: Tensor) -> None:
        nonlocal counted
        total = counter.get_total_flops()
        look.shapes[layer.name] = tuple(value.shape[1:] if value.ndim and value.shape[0] == 1 else value.shape)
        look.numels[layer.name], look.macs[layer.name] = value.numel(), (total - counted) // 2
        counted = total

    with counter:
        output = network.run(one, tap).output
    return replace(look, outputs=sum(t[0].numel() for t in output_tensors(output)))


def _combined(network: Network, looks: Sequence[Look]) -> dict[str, Facts]:
    """Return what is known of each layer by one look a sample."""
    return {
        layer.name: Facts(
            tuple(look.shapes.get(layer.name, ()) for look in looks),
            tuple(look.numels.get(layer.name, 0) for look in looks),
            sum(look.macs.get(layer.name, 0) for look in looks) / len(looks),
        )
        for layer in network.layers
    }


def first_look(network: Network, one: Batch) -> dict[str, Facts]:
    """Return shape, size and MACs of every layer, from one sample.

    Args:
        network: the network.
        one: a batch that holds a single sample.
    """
    return _combined(network, [_look_at(network, one)])


def look_at_sizes(
    network: Network, feed: Feed, shapes: Sequence[tuple[torch.Size, ...]]
) -> tuple[dict[str, Facts], int]:
    """Return shape, size and MACs of every layer over all samples, and the most elements that the network returns.

    Args:
        network: the network.
        feed: the samples.
        shapes: of each sample's inputs; of those of equal shapes one is run.
    """
    of_shapes: dict[tuple[torch.Size, ...], Look] = {}
    for index, shape in enumerate(shapes):
        if shape not in of_shapes:
            of_shapes[shape] = _look_at(network, feed.batch(index))
    looks = [of_shapes[shape] for shape in shapes]
    return _combined(network, looks), max(look.outputs for look in looks)


def find_sample_axes(network: Network, one: Batch, pair: Batch, facts: dict[str, Facts]) -> str:
    """Find out where each layer keeps its samples by comparing one sample alone with a pair.

    Args:
        network: the network.
        one: sample i alone.
        pair: sample i and another one.
        facts: their ``axis`` is filled in.

    Returns:
        the name of a layer that does not keep samples apart (the network must then be given one sample at a
        time), or "" if all do.
    """
    shapes: dict[str, torch.Size] = {}
    norms: dict[str, list[float]] = {}

    def look(layer: Layer, call: Call, value: Tensor) -> None:
        shapes[layer.name] = value.shape
        norms.setdefault(layer.name, []).append(float(sample_norms(value, SampleAxis(), 1)))

    mixed: list[str] = []

    def compare(layer: Layer, call: Call, value: Tensor) -> None:
        axis = _doubled(shapes.get(layer.name, torch.Size()), value.shape)
        if axis is None or not _close(sample_norms(value, axis, 2).tolist(), norms[layer.name]):
            mixed.append(layer.name)
        else:
            facts[layer.name].axis = replace(facts[layer.name].axis, dim=axis.dim, repeat=axis.repeat)

    for alone in (one, single_samples(pair)[1]):
        network.run(alone, look)
    network.run(pair, compare)
    return mixed[0] if mixed else ""


def _close(some: list[float], others: list[float]) -> bool:
    if len(some) != len(others):  # a layer that one of the samples calls more often
        return False
    pairs = zip(some, others, strict=True)
    return all(math.isclose(a, b, rel_tol=1e-3, abs_tol=1e-9) for a, b in pairs)


def _doubled(one: torch.Size, two: torch.Size) -> SampleAxis | None:
    if len(one) != len(two):
        return None
    changed = [d for d in range(len(one)) if one[d] != two[d]]
    if len(changed) != 1 or two[changed[0]] != 2 * one[changed[0]]:
        return None
    return SampleAxis(changed[0], one[changed[0]])


def mask_by_fills(network: Network, facts: Mapping[str, Facts]) -> None:
    """Note in ``facts`` which layers set values to a masking number, whether or not any sample shows it."""
    for name in masking_fills(network):
        facts[name].mask(LEAST)


def find_ranges(network: Network, batch: Batch, facts: dict[str, Facts]) -> None:
    """Widen each layer's range by what it takes on ``batch``; padding and masked scores do not count.

    Args:
        network: the network.
        batch: some samples.
        facts: ranges are widened, and where scores are masked, ``axis.masked`` tells up to where.

    Raises:
        ModelError: an activation is NaN or +inf; the message names the first such layer.
    """
    positions = real_positions(batch)

    def unpadded(name: str, scores: Tensor, keep_last: bool) -> Tensor:
        axis = facts[name].axis
        axis = replace(axis, positions=axis.positions[:-1]) if keep_last else axis
        real = real_elements(scores, axis, positions)
        return scores.flatten() if real is None else scores[real.expand_as(scores)]

    watch = ScoreWatch(network, unpadded)

    def widen(known: Facts, value: Tensor, low: float, high: float) -> None:
        if low <= LEAST:
            known.mask(LEAST)
        counted = counted_elements(value, known.axis, positions)
        if counted is not None:
            value = value[counted.expand_as(value)]
            if value.numel() == 0:
                return
            low, high = _bounds(value)
        known.low, known.high = min(known.low, low), max(known.high, high)

    def take(judged: Iterable[Judged]) -> None:
        for name, scores, masked in judged:
            if masked is not None:
                facts[name].mask(masked)
            widen(facts[name], scores, *_bounds(scores))

    def tap(layer: Layer, call: Call, value: Tensor) -> None:
        if value.numel() == 0:
            return
        low, high = _bounds(value)
        if math.isnan(low) or high == math.inf:
            what = "NaN" if math.isnan(low) else "infinite"
            where = ", ".join(map(str, batch.samples))
            raise ModelError(
                f"layer {layer.name!r} ({layer.kind}) is the first that is {what}, in samples {where}: "
                "look at the data's scale and at the weights before it"
            )
        take(watch.judged(layer, call, value))
        if not watch.keep(layer, value):
            widen(facts[layer.name], value, low, high)

    network.run(batch, tap)
    take(watch.left())


def _bounds(value: Tensor) -> tuple[float, float]:
    low, high = torch.aminmax(value)
    return float(low), float(high)


def check_weights(model: nn.Module) -> None:
    """Refuse weights that hold NaN or infinity.

    Raises:
        ModelError: naming the first such parameter.
    """
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point() and not bool(parameter.isfinite().all()):
            bad = int((~parameter.isfinite()).sum())
            raise ModelError(
                f"weight {name!r} holds {bad} NaN or infinite of {parameter.numel()} values: the checkpoint is broken"
            )


def never_run(network: Network) -> list[str]:
    """Return the paths of modules with parameters of their own that no call reaches."""
    modules = dict(network.model.named_modules())
    # Attention multiplies with the weights of a module inside it that it does not call.
    whole = tuple(
        f"{path}." for path, m in modules.items() if m in network.called and isinstance(m, nn.MultiheadAttention)
    )
    return [
        path
        for path, module in modules.items()
        if path
        and module not in network.called
        and any(True for _ in module.parameters(recurse=False))
        and not path.startswith(whole)
    ]
