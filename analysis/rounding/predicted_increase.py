"""The predicted increase of the loss if one tensor alone were quantized: how each number is found.

Rounding errors are neither isotropic nor independent: at few bits they are as large as what is rounded, and where
most values are one constant, all of these have the same. So the increase is estimated from the errors themselves
(:mod:`rounding_damage`) where a plain backward pass tells it: the loss knows a factor S, and the Gauss-Newton matrix
is the Hessian. All else is ½ · E[trace/n · ‖Q(a) − a‖²], at all bit-widths. Where neither can be trusted the increase
is measured (:mod:`measured_increases`), and no width is predicted to hurt less than a wider one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hessrank.analysis.estimators import Weight
from hessrank.analysis.estimators.base import target_of
from hessrank.analysis.estimators.choose import curved_ones, where_exact
from hessrank.analysis.rounding.error_pass import RoundingErrors
from hessrank.analysis.rounding.measure_untrusted import NOISY, WIPED_OUT, Doubt, falling_with_bits, measure_increases
from hessrank.analysis.rounding.measured_increase import Damaged
from hessrank.analysis.rounding.quadratic_form_sampler import RoundingDraws, spread_draws
from hessrank.analysis.rounding.quantize import weight_errors
from hessrank.analysis.sampling.sampler import Progress, Rounds
from hessrank.analysis.statistics import Array, in_groups
from hessrank.network.outputs import output_tensors
from hessrank.network.weights import module_of


@dataclass(frozen=True)
class Increases:
    """The predicted increases of one ranking, in units of the loss.

    Rows are the layers in the order of execution, then the weights.

    Attributes:
        bits: the bit-widths, ascending.
        values: increases, shape (layers + weights, bits); NaN where a weight has no trace.
        measured: which of them are measured, of the same shape.
        weights: the weights.
        doubts: predictions that are not trusted, and were not measured either.
        draws: the rounding damage that was drawn, for some or all of the layers; None if none was.
        why: why the formula is used for all else.
    """

    bits: tuple[int, ...]
    values: Array
    measured: NDArray[np.bool_]
    weights: tuple[Weight, ...]
    doubts: tuple[Doubt, ...]
    draws: RoundingDraws | None
    why: str

    def of_layers(self) -> tuple[Array, NDArray[np.bool_]]:
        """Return the increase of every layer and bit-width, shape (layers, bits), and which are measured."""
        count = len(self.values) - len(self.weights)
        return self.values[:count], self.measured[:count]

    def of_weights(self) -> Mapping[Weight, tuple[Array, NDArray[np.bool_]]]:
        """Return the increase of every weight at each bit-width, and which are measured."""
        first = len(self.values) - len(self.weights)
        return {w: (self.values[i], self.measured[i]) for i, w in enumerate(self.weights, start=first)}

    def rank_by(self, rounds: Rounds, width: int, tolerance: float) -> None:
        """Let the layers be ranked by the damage drawn for ``width`` bits, where any was.

        The replicates are then those of the draws: samples, or blocks of draws where there is one sample only; they
        are scaled to what the table says. A layer that the formula is for keeps the replicates of its trace.
        """
        draws = self.draws
        if draws is None:
            return
        rows = _rows(rounds, draws, self.weights)[: len(draws.layers)]
        drawn, formula = draws.replicates(width), rounds.key_replicates()
        others = [row for row in range(len(formula)) if row not in set(rows)]
        tables = {tuple(rows): drawn} | ({tuple(others): formula[others]} if others else {})
        count = min((table.shape[1] for table in tables.values() if table.shape[1] > 1), default=1)  # 1: exact
        keys, share = np.zeros((len(formula), count)), rounds.probe_share()
        for places, table in tables.items():
            keys[list(places)] = in_groups(table, count)
        share[rows] = draws.noise_share(width)
        means, wanted = keys.mean(1), self.of_layers()[0][:, self.bits.index(width)]
        keys *= np.where(means != 0, wanted / np.where(means != 0, means, 1), 1)[:, None]
        rounds.rank_by(keys, share, tolerance, exact=draws.exact and (not others or rounds.exact))

    def record(self, rounds: Rounds) -> dict[str, Any]:
        """Return how the increases came about."""
        draws = self.draws
        layers = [layer.name for layer in rounds.network.layers]
        return {
            "method": "rounding errors" if draws else "trace",
            "bits": list(draws.bits) if draws else [],
            "draws": sum(draws.counts) if draws else 0,
            "exact": draws.exact if draws else False,
            "from_trace": {
                "layers": [name for name in layers if not draws or name not in draws.layers],
                "weights": [w.calls[0] for w in self.weights if not draws or w not in draws.weights],
                "why": self.why,
            },
            "measured": int(self.measured.sum()),
            "not_trusted": [
                {"layer": d.what.layer, "tensor": d.what.tensor, "bits": d.what.bits}
                for d in sorted(self.doubts, key=lambda d: (d.row, d.column))
            ],
        }

    def notes(self) -> list[str]:
        """Return what a reader should know."""
        notes = []
        if count := int(self.measured.sum()):
            notes.append(
                f"{count} increases are measured, not predicted (columns act_measured, weight_measured): so few bits "
                "round most of these tensors to 0"
            )
        if self.doubts:
            worst = max(self.doubts, key=lambda doubt: doubt.size).what
            notes.append(
                f"{len(self.doubts)} predicted increases are not trusted, as that of {worst.layer} at {worst.bits} "
                "bits: rounding wipes most of such a tensor out, or the draws are few and far apart; raise "
                "--increase-probes to have more of them, and more measured"
            )
        return notes


def predict_increases(
    rounds: Rounds, errors: RoundingErrors, bits: Sequence[int], draws: int, outputs: int, progress: Progress
) -> Increases:
    """Draw the rounding damage where it is the increase, predict the rest from the traces, measure what is doubtful.

    Args:
        rounds: the finished sampling of the traces.
        errors: what the samples show of rounding each layer.
        bits: the bit-widths of ``errors``.
        draws: random probes in all, spread over the samples; 0 draws and measures nothing.
        outputs: most elements that the network returns for a sample.
        progress: told how far it is, as the stages ``increases`` and ``measured``.
    """
    weights = tuple(weight for part in rounds.parts for weight in part.choice.weights)
    of_weights = [weight_errors(module_of(rounds.network, weight), weight.parameter, bits) for weight in weights]
    moved, wiped = np.array(of_weights).reshape(-1, 2, len(bits)).swapaxes(0, 1)
    by_sample = np.concatenate([_layers_by_trace(rounds, errors), _weights_by_trace(rounds, moved)])
    drawn, why = _drawn(rounds, errors, bits, draws, outputs, progress)
    noise = np.zeros(by_sample.shape[:2])
    if drawn is not None:
        rows = _rows(rounds, drawn, weights)
        by_sample[rows], noise[rows] = drawn.per_sample(), drawn.noise()
    values = by_sample.mean(2)
    found: dict[tuple[int, int], float] = {}
    wiped = np.concatenate([errors.wiped.mean(2), wiped])
    doubts = _doubts(rounds, weights, bits, wiped, values, noise) if draws else []
    if doubts:
        found, doubts = measure_increases(rounds, doubts, by_sample, draws, progress)
    measured = np.zeros(values.shape, dtype=np.bool_)
    for place, increase in found.items():
        values[place], measured[place] = increase, True
    return Increases(tuple(bits), falling_with_bits(values, measured), measured, weights, tuple(doubts), drawn, why)


def _layers_by_trace(rounds: Rounds, errors: RoundingErrors) -> Array:
    return np.asarray(errors.errors * rounds.traces_per_sample()[:, None, :] / 2)


def _weights_by_trace(rounds: Rounds, moved: Array) -> Array:
    """Return ½ · trace/n · ‖e‖² of every weight, bit-width and sample; NaN where there is no trace.

    Args:
        rounds: the finished sampling of the traces.
        moved: ‖e‖²/n of the weights, shape (weights, bits).
    """
    traces = [np.zeros((0, len(rounds.batches))), *(part.weights.per_sample() for part in rounds.parts)]
    return np.asarray(np.concatenate(traces)[:, None, :] * moved[:, :, None] / 2)


def _drawn(
    rounds: Rounds, errors: RoundingErrors, bits: Sequence[int], draws: int, outputs: int, progress: Progress
) -> tuple[RoundingDraws | None, str]:
    """Return the rounding damage that can be drawn, and why the formula is used for the rest."""
    if not draws:
        return None, "no probes were asked for"
    if not _knows_factor(rounds):
        return None, f"loss {rounds.loss.name!r} knows no factor of its curvature"
    layers, weights = where_exact(rounds.network, rounds.loss, _with_trace(rounds))
    all_of_them = len(layers) == len(rounds.network.layers)
    why = "" if all_of_them else f"the Gauss-Newton matrix is not the Hessian before {curved_ones(rounds.network)}"
    if not layers:
        return None, why
    counts = spread_draws(draws, _shares(rounds, errors.errors))
    exact = len(counts) * outputs <= sum(counts) or any(part.estimator.deterministic for part in rounds.parts)
    found = RoundingDraws(layers, weights, bits, [outputs] * len(counts) if exact else counts, exact=exact)
    found.run(rounds, progress)
    return found, why


def _rows(rounds: Rounds, drawn: RoundingDraws, weights: Sequence[Weight]) -> list[int]:
    """Return which rows of the table were drawn."""
    row = {layer.name: layer.execution_index for layer in rounds.network.layers}
    place = {weight: len(row) + i for i, weight in enumerate(weights)}
    return [*(row[name] for name in drawn.layers), *(place[weight] for weight in drawn.weights)]


def _doubts(
    rounds: Rounds, weights: Sequence[Weight], bits: Sequence[int], wiped: Array, values: Array, noise: Array
) -> list[Doubt]:
    """Return the predictions that are not trusted: where rounding wipes a tensor out, or the draws disagree."""
    sizes = np.maximum(wiped / WIPED_OUT, noise / NOISY)
    names = [(layer.name, None) for layer in rounds.network.layers] + [(w.calls[0], w) for w in weights]
    places = zip(*np.nonzero((sizes > 1) & np.isfinite(values)), strict=True)
    return [
        Doubt(int(row), int(column), Damaged(names[row][0], bits[column], names[row][1]), float(sizes[row, column]))
        for row, column in places
    ]


def _shares(rounds: Rounds, errors: Array) -> Array:
    """Return each sample's part of the increase that the traces predict, the mean over layers and bit-widths."""
    samples = errors.shape[2]
    found = np.abs(errors * rounds.traces_per_sample()[:, None, :]).reshape(-1, samples)
    found = found[found.sum(1) > 0]
    return np.asarray((found / found.sum(1, keepdims=True)).mean(0)) if len(found) else np.full(samples, 1 / samples)


def _knows_factor(rounds: Rounds) -> bool:
    """Return whether the loss knows a factor S of its curvature."""
    one = rounds.batches.batch(0)
    output = rounds.network.run(one, lambda *_: None).output
    zeros = [torch.zeros_like(tensor) for tensor in output_tensors(output)]
    return rounds.loss.factor(output, target_of(rounds.loss, one, output), zeros) is not None


def _with_trace(rounds: Rounds) -> list[Weight]:
    """Return the weights that have a trace: an estimator may leave them out."""
    found = ((part.choice.weights, part.weights.per_sample().mean(1)) for part in rounds.parts)
    return [w for weights, traces in found for w, trace in zip(weights, traces, strict=True) if not np.isnan(trace)]
