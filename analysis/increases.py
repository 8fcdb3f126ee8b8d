"""The predicted increase of the loss if one tensor alone were quantized: how each number is found.

Rounding errors of few bits are neither isotropic nor independent. So the increase is estimated from the errors
themselves (:mod:`rounding_damage`) where a plain backward pass tells it: the loss knows a factor S, and the
Gauss-Newton matrix is the Hessian. All else, and whatever has more than :data:`MOST_BITS` bits, is
½ · E[trace/n · ‖Q(a) − a‖²].
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from hessrank.analysis.damage import weight_errors
from hessrank.analysis.estimators import Weight
from hessrank.analysis.estimators.auto import curved_ones, where_exact
from hessrank.analysis.estimators.base import target_of
from hessrank.analysis.outputs import output_tensors
from hessrank.analysis.rounding_draws import RoundingDraws
from hessrank.analysis.rounds import Progress, Rounds
from hessrank.analysis.statistics import Array, in_groups

MOST_BITS = 8  # with more, the errors are as good as independent


class Increases:
    """The predicted increases of one ranking, in units of the loss."""

    def __init__(
        self, rounds: Rounds, errors: Array, bits: Sequence[int], draws: RoundingDraws | None, why: str
    ) -> None:
        """Put together what is known.

        Args:
            rounds: the finished sampling of the traces.
            errors: ‖Q(a) − a‖²/n, shape (layers, bits, samples).
            bits: the bit-widths of ``errors``.
            draws: the rounding damage that was drawn, for some or all of the layers; None if none was.
            why: why the formula is used for all else, up to 8 bits.
        """
        self.bits = tuple(bits)
        self._rounds, self._errors, self._draws, self._why = rounds, errors, draws, why

    def of_layers(self) -> Array:
        """Return the increase of every layer, in the order of execution, and bit-width: shape (layers, bits)."""
        values = np.asarray((self._errors * self._rounds.traces_per_sample()[:, None, :]).mean(2) / 2)
        if draws := self._draws:
            values[np.ix_(self._rows(draws), self._columns(draws))] = draws.means()[: len(draws.layers)]
        return values

    def of_weights(self) -> Mapping[Weight, Array]:
        """Return the increase of every weight at each bit-width; NaN where there is no trace."""
        found = {}
        for part in self._rounds.parts:
            for weight, trace in zip(part.choice.weights, part.weights.values().mean(1), strict=True):
                module = self._rounds.module_of(weight)
                found[weight] = trace * np.array(weight_errors(module, weight.parameter, self.bits)) / 2
        if draws := self._draws:
            for weight, values in zip(draws.weights, draws.means()[len(draws.layers) :], strict=True):
                found[weight][self._columns(draws)] = values
        return found

    def rank_by(self, width: int, tolerance: float) -> None:
        """Let the layers be ranked by the damage drawn for ``width`` bits, where any was.

        The replicates are then those of the draws: samples, or blocks of draws where there is one sample only.
        A layer that the formula is for keeps the replicates of its trace.
        """
        draws, rounds = self._draws, self._rounds
        if draws is None or width not in draws.bits:
            return
        rows, drawn, formula = self._rows(draws), draws.replicates(width), rounds.key_replicates()
        others = [row for row in range(len(formula)) if row not in set(rows)]
        tables = {tuple(rows): drawn} | ({tuple(others): formula[others]} if others else {})
        count = min((table.shape[1] for table in tables.values() if table.shape[1] > 1), default=1)  # 1: exact
        keys, share = np.zeros((len(formula), count)), rounds.probe_share()
        for places, table in tables.items():
            keys[list(places)] = in_groups(table, count)
        share[rows] = draws.noise_share(width)
        rounds.rank_by(keys, share, tolerance, exact=draws.exact and (not others or rounds.exact))

    def record(self) -> dict[str, Any]:
        """Return how the increases came about."""
        draws, network = self._draws, self._rounds.network
        layers = [layer.name for layer in network.layers]
        weights = [weight for part in self._rounds.parts for weight in part.choice.weights]
        return {
            "method": "rounding errors" if draws else "trace",
            "bits": list(draws.bits) if draws else [],
            "draws": draws.per_sample * len(self._rounds.feed) if draws else 0,
            "exact": draws.exact if draws else False,
            "from_trace": {
                "layers": [name for name in layers if not draws or name not in draws.layers],
                "weights": [w.calls[0] for w in weights if not draws or w not in draws.weights],
                "why": self._why,
            },
        }

    def _rows(self, draws: RoundingDraws) -> list[int]:
        row = {layer.name: layer.execution_index for layer in self._rounds.network.layers}
        return [row[name] for name in draws.layers]

    def _columns(self, draws: RoundingDraws) -> list[int]:
        return [self.bits.index(width) for width in draws.bits]


def predict_increases(
    rounds: Rounds, errors: Array, bits: Sequence[int], draws: int, progress: Progress
) -> Increases:
    """Draw the rounding damage where it is the increase, and predict the rest from the traces.

    Args:
        rounds: the finished sampling of the traces.
        errors: ‖Q(a) − a‖²/n, shape (layers, bits, samples).
        bits: the bit-widths of ``errors``.
        draws: random probes in all, spread over the samples; 0 draws nothing.
        progress: told how far it is, as the stage ``increases``.
    """
    few = [width for width in bits if width <= MOST_BITS]
    if not draws or not few:
        return Increases(rounds, errors, bits, None, "no probes were asked for" if few else "")
    outputs, known = _outputs(rounds)
    if not known:
        return Increases(rounds, errors, bits, None, f"loss {rounds.loss.name!r} knows no factor of its curvature")
    layers, weights = where_exact(rounds.network, rounds.loss, _with_trace(rounds))
    all_of_them = len(layers) == len(rounds.network.layers)
    why = "" if all_of_them else f"the Gauss-Newton matrix is not the Hessian before {curved_ones(rounds.network)}"
    if not layers:
        return Increases(rounds, errors, bits, None, why)
    samples = len(rounds.feed)
    per_sample = max(math.ceil(draws / samples), 2 if samples == 1 else 1)  # one draw alone would have no error bar
    exact = outputs <= per_sample or any(part.estimator.deterministic for part in rounds.parts)
    found = RoundingDraws(layers, weights, few, outputs if exact else per_sample, samples, exact=exact)
    found.run(rounds, progress)
    return Increases(rounds, errors, bits, found, why)


def _outputs(rounds: Rounds) -> tuple[int, bool]:
    """Return how many elements a sample's output has, and whether the loss knows a factor S of its curvature."""
    one = rounds.feed.batch(0)
    output = rounds.network.run(one, lambda *_: None).output
    tensors = output_tensors(output)
    factor = rounds.loss.factor(output, target_of(rounds.loss, one, output), [torch.zeros_like(t) for t in tensors])
    return sum(t[0].numel() for t in tensors), factor is not None


def _with_trace(rounds: Rounds) -> list[Weight]:
    """Return the weights that have a trace: an estimator may leave them out."""
    found = ((part.choice.weights, part.weights.per_sample().mean(1)) for part in rounds.parts)
    return [w for weights, traces in found for w, trace in zip(weights, traces, strict=True) if not np.isnan(trace)]
