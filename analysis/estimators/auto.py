"""Chooses, for each layer, the cheapest estimator that is exact for this loss and this network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hessrank.analysis.estimators.base import ESTIMATORS
from hessrank.analysis.losses import Loss, Self
from hessrank.analysis.network import Network
from hessrank.analysis.weights import Weight

FEW_OUTPUTS = 64  # below this, every output gets a backward pass of its own and there is no probe noise


@dataclass(frozen=True)
class Choice:
    """An estimator for some of the layers.

    Attributes:
        estimator: its name.
        layers: names of the layers it is for.
        weights: the weights it is for.
        why: the reason, for people.
    """

    estimator: str
    layers: tuple[str, ...]
    weights: tuple[Weight, ...]
    why: str


def where_exact(
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


def plan(name: str, network: Network, loss: Loss, weights: Sequence[Weight], outputs_per_sample: int) -> list[Choice]:
    """Return which estimator does which layers; together they do all of them.

    Args:
        name: an estimator's name, or ``auto``.
        network: the network.
        loss: the loss.
        weights: the weights wanted.
        outputs_per_sample: number of elements that the network returns for a sample.

    Raises:
        UnknownNameError: there is no estimator of that name.
    """
    everything = tuple(layer.name for layer in network.layers)
    if name != "auto":
        ESTIMATORS.resolve(name)
        return [Choice(name, everything, tuple(weights), _caution(name, network, loss))]
    first_order = "exact" if outputs_per_sample <= FEW_OUTPUTS else "gauss-newton"
    how = (
        f"one backward pass for each of {outputs_per_sample} outputs, no probe noise"
        if first_order == "exact"
        else "one backward pass a probe for all layers"
    )
    if isinstance(loss, Self):
        why = f"at the model's own output the Hessian is the Gauss-Newton matrix; {how}"
        return [Choice(first_order, everything, tuple(weights), why)]
    flat, flat_weights = where_exact(network, loss, weights)
    curved = tuple(layer for layer in everything if layer in network.curved)
    curved_weights = tuple(w for w in weights if w not in flat_weights)
    choices = [
        Choice(first_order, flat, flat_weights, f"all that follows is piecewise linear; {how}"),
        Choice(
            "hutchinson",
            curved,
            curved_weights,
            f"{curved_ones(network)} follow: the full Hessian is needed",
        ),
    ]
    return [choice for choice in choices if choice.layers or choice.weights]


def curved_ones(network: Network) -> str:
    """Return what is curved in a network, in a few words."""
    names = sorted(set(network.curved.values()))
    return ", ".join(names[:4]) + (", …" if len(names) > 4 else "") or "weights that are used twice"


def _caution(name: str, network: Network, loss: Loss) -> str:
    if name in ("gauss-newton", "exact") and network.curved and not isinstance(loss, Self):
        return (
            f"asked for; for the {len(network.curved)} layers before {curved_ones(network)} this is the trace "
            "of the Gauss-Newton matrix, which is not the Hessian's"
        )
    return "asked for"
