"""Chooses the cheapest unbiased estimator for each layer.

Which one is unbiased for the Hessian's trace depends on the loss and on what follows the layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hessrank.analysis.estimators.base import FEW_OUTPUTS, OUTPUT
from hessrank.analysis.estimators.curvature_propagation.segments import PlannedSegment
from hessrank.analysis.losses import Loss, Self
from hessrank.analysis.registries import ESTIMATORS
from hessrank.network.network import Network
from hessrank.network.weights import Weight
from hessrank.text import DOTS, listed

FEW_LAYERS = 8  # below this, a pilot would cost more than it saves

FIRST_ORDER = ("gauss-newton", "exact")  # one plain backward pass a probe

_USED_TWICE = "several calls share them: they multiply with themselves"

Pilot = Callable[[tuple[str, ...]], list[PlannedSegment]]
"""Plans how to estimate the full Hessian's traces of some layers; may be empty."""


@dataclass(frozen=True)
class EstimatorChoice:
    """An estimator for some of the layers.

    Attributes:
        estimator: its name.
        layers: names of the layers it is for.
        weights: the weights it is for.
        why: the reason, for people.
        probed_at: where the random vectors are drawn: ``output``, or names of layers; empty if at each layer itself.
        settings: what the estimator is made with.
        rate: how many probes it takes where others take one.
        at_least: how many probes it takes at a time, because a start is expensive.
        hutchinson: the variance of one of Hutchinson's probes at each layer on ``sample``, where a pilot has seen it:
            what the estimator should match by its rate.
        sample: the sample of ``hutchinson``.
    """

    estimator: str
    layers: tuple[str, ...]
    weights: tuple[Weight, ...]
    why: str
    probed_at: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    rate: float = 1.0
    at_least: int = 1
    hutchinson: tuple[float, ...] = ()
    sample: int = 0

    def probes(self, count: int, rate: float | None = None) -> int:
        """Return how many probes it takes in all while others take ``count``.

        It takes them at its own rate, or at ``rate``.
        """
        wanted = math.ceil(count * (self.rate if rate is None else rate))
        return math.ceil(wanted / self.at_least) * self.at_least


def find_exact_parts(
    network: Network, loss: Loss, weights: Sequence[Weight]
) -> tuple[tuple[str, ...], tuple[Weight, ...]]:
    """Return the layers and weights for which the Gauss-Newton matrix is the Hessian.

    For the `self` losses all of them; for a task loss those that nothing curved follows. A weight that is used
    twice multiplies with itself, which is curved.
    """
    everything = tuple(layer.name for layer in network.layers)
    if isinstance(loss, Self):
        return everything, tuple(weights)
    flat = tuple(layer for layer in everything if layer not in network.curved)
    return flat, tuple(w for w in weights if len(w.calls) == 1 and w.calls[0] in flat)


def choose_estimators(
    name: str,
    network: Network,
    loss: Loss,
    weights: Sequence[Weight],
    outputs_per_sample: int,
    pilot: Pilot | None = None,
) -> list[EstimatorChoice]:
    """Return which estimator does which layers; together they do all of them.

    Args:
        name: an estimator's name, or ``auto``.
        network: the network.
        loss: the loss.
        weights: the weights wanted.
        outputs_per_sample: number of elements that the network returns for a sample.
        pilot: asked where something curved follows a layer; None leaves such layers to `hutchinson`.

    Raises:
        UnknownNameError: there is no estimator of that name.
    """
    if name != "auto":
        ESTIMATORS.resolve_or_import(name)
        return _choose_requested(name, network, loss, weights)
    everything = tuple(layer.name for layer in network.layers)
    first_order = "exact" if outputs_per_sample <= FEW_OUTPUTS else "gauss-newton"
    how = (
        f"one backward pass for each of {outputs_per_sample} outputs, no probe noise"
        if first_order == "exact"
        else "one backward pass a probe for all layers"
    )
    if isinstance(loss, Self):
        why = f"at the model's own output the Hessian is the Gauss-Newton matrix; {how}"
        return [EstimatorChoice(first_order, everything, tuple(weights), why, OUTPUT)]
    flat, flat_weights = find_exact_parts(network, loss, weights)
    curved = tuple(layer for layer in everything if layer in network.curved)
    curved_weights = tuple(w for w in weights if w not in flat_weights)
    why = f"all that follows is piecewise linear; {how}"
    choices = [
        EstimatorChoice(first_order, flat, flat_weights, why, OUTPUT),
        *_choose_where_curved(network, curved, curved_weights, pilot),
    ]
    return [choice for choice in choices if choice.layers or choice.weights]


def _choose_requested(name: str, network: Network, loss: Loss, weights: Sequence[Weight]) -> list[EstimatorChoice]:
    """Return the estimator ``name`` for all layers, and one for weights left out."""
    layers, why = tuple(layer.name for layer in network.layers), "asked for"
    if name in FIRST_ORDER and network.curved and not isinstance(loss, Self):
        why += (
            f"; for the {len(network.curved)} layers before {name_curved_layers(network)} this is the trace "
            "of the Gauss-Newton matrix, which is not the Hessian's"
        )
    if name != "curvature-propagation":
        return [EstimatorChoice(name, layers, tuple(weights), why, OUTPUT if name in FIRST_ORDER else "")]
    once, often = _split_by_calls(weights)
    main = EstimatorChoice(name, layers, once, why, OUTPUT)
    return [main, EstimatorChoice("hutchinson", (), often, _USED_TWICE)] if often else [main]


def _split_by_calls(weights: Sequence[Weight]) -> tuple[tuple[Weight, ...], tuple[Weight, ...]]:
    """Return the weights that one call multiplies with, and those that several share."""
    return tuple(w for w in weights if len(w.calls) == 1), tuple(w for w in weights if len(w.calls) > 1)


def _choose_where_curved(
    network: Network, layers: tuple[str, ...], weights: tuple[Weight, ...], pilot: Pilot | None
) -> list[EstimatorChoice]:
    """Choose the estimators of the full Hessian's traces.

    They are what the pilot found cheapest, and Hutchinson's estimator for the rest.
    """
    reason = f"{name_curved_layers(network)} follow: the full Hessian is needed"
    planned = pilot(layers) if pilot is not None and len(layers) >= FEW_LAYERS else []
    names = [layer.name for layer in network.layers]
    choices = []
    for part in planned:
        if part.segment is None:
            continue
        within = {names[i] for i in range(part.segment.first, part.segment.last + 1)}
        fixed = f", {part.fixed} directions apart" if part.fixed else ""
        rate = f", {part.rate:g} probes where others take one" if part.rate != 1 else ""
        choices.append(
            EstimatorChoice(
                "curvature-propagation",
                tuple(names[i] for i in part.layers),
                tuple(w for w in _split_by_calls(weights)[0] if w.calls[0] in within),
                f"{reason}; a pilot found it cheapest: probed at {part.probed_at}{fixed}{rate}",
                part.probed_at,
                {"segment": part.segment, "region": part.region},
                part.rate,
                part.segment.rank or 1,
                part.hutchinson,
                part.sample,
            )
        )
    done = {layer for choice in choices for layer in choice.layers}
    done_weights = {weight for choice in choices for weight in choice.weights}
    left = tuple(layer for layer in layers if layer not in done)
    left_weights = tuple(w for w in weights if w not in done_weights)
    why = reason + ("; a pilot found nothing cheaper" if done and left else "")
    return [*choices, EstimatorChoice("hutchinson", left, left_weights, why if left or not choices else _USED_TWICE)]


def name_curved_layers(network: Network) -> str:
    """Return what is curved in a network, in a few words."""
    names = sorted(set(network.curved.values()))
    return listed(names, 4, DOTS) or "weights that are used twice"
