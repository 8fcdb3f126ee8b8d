"""Surveys the layers by forward passes: sample axes, ranges, broken weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from hessrank.data.batch import Batch, single_samples
from hessrank.errors import ModelError
from hessrank.network.layer_facts import LayerFacts, SampleAxis, sample_norms
from hessrank.network.layer_names import Layer
from hessrank.network.masked_scores import LEAST, JudgedScores, ScoreWatch, masking_fills
from hessrank.network.network import Network
from hessrank.network.padding import counted_elements, real_elements, real_positions
from hessrank.network.walks.call import Call


def find_sample_axes(network: Network, sample: Batch, pair: Batch, facts: dict[str, LayerFacts]) -> str:
    """Find each layer's sample axis by comparing one sample with a pair.

    Args:
        network: the network.
        sample: sample i alone.
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
        axis = _find_doubled_axis(shapes.get(layer.name, torch.Size()), value.shape)
        if axis is None or not _are_close(sample_norms(value, axis, 2).tolist(), norms[layer.name]):
            mixed.append(layer.name)
        else:
            facts[layer.name].axis = replace(facts[layer.name].axis, dim=axis.dim, repeat=axis.repeat)

    for alone in (sample, single_samples(pair)[1]):
        network.run(alone, look)
    network.run(pair, compare)
    return mixed[0] if mixed else ""


def _are_close(norms: list[float], others: list[float]) -> bool:
    if len(norms) != len(others):  # a layer that one of the samples calls more often
        return False
    pairs = zip(norms, others, strict=True)
    return all(math.isclose(a, b, rel_tol=1e-3, abs_tol=1e-9) for a, b in pairs)


def _find_doubled_axis(single: torch.Size, pair: torch.Size) -> SampleAxis | None:
    if len(single) != len(pair):
        return None
    changed = [d for d in range(len(single)) if single[d] != pair[d]]
    if len(changed) != 1 or pair[changed[0]] != 2 * single[changed[0]]:
        return None
    return SampleAxis(changed[0], single[changed[0]])


def mask_by_fills(network: Network, facts: Mapping[str, LayerFacts]) -> None:
    """Note in ``facts`` which layers set values to a masking number.

    It counts whether or not any sample shows it.
    """
    for name in masking_fills(network):
        facts[name].mask(LEAST)


def find_ranges(network: Network, batch: Batch, facts: dict[str, LayerFacts]) -> None:
    """Widen each layer's range by the values that it takes on ``batch``.

    Padding and masked scores do not count.

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

    def widen(known: LayerFacts, value: Tensor, low: float, high: float) -> None:
        if low <= LEAST:
            known.mask(LEAST)
        counted = counted_elements(value, known.axis, positions)
        if counted is not None:
            value = value[counted.expand_as(value)]
            if value.numel() == 0:
                return
            low, high = _find_bounds(value)
        known.low, known.high = min(known.low, low), max(known.high, high)

    def take(judged: Iterable[JudgedScores]) -> None:
        for name, scores, masked in judged:
            if masked is not None:
                facts[name].mask(masked)
            widen(facts[name], scores, *_find_bounds(scores))

    def tap(layer: Layer, call: Call, value: Tensor) -> None:
        if value.numel() == 0:
            return
        low, high = _find_bounds(value)
        if math.isnan(low) or high == math.inf:
            what = "NaN" if math.isnan(low) else "infinite"
            where = ", ".join(map(str, batch.samples))
            raise ModelError(
                f"layer {layer.name!r} ({layer.kind}) is the first that is {what}, in samples {where}: "
                "look at the data's scale and at the weights before it"
            )
        take(watch.judge(layer, call, value))
        if not watch.keep(layer, value):
            widen(facts[layer.name], value, low, high)

    network.run(batch, tap)
    take(watch.take_left())


def _find_bounds(value: Tensor) -> tuple[float, float]:
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


def find_never_run(network: Network) -> list[str]:
    """Return the paths of modules with own parameters that no call reaches."""
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
