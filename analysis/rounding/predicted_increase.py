"""Predicts the increase of the loss if one tensor alone were quantized.

Rounding errors are neither isotropic nor independent: at few bits they are as large as what is rounded, and where
most values are one constant, all of these have the same. So the increase is estimated from the errors themselves
(:mod:`quadratic_form`) where a plain backward pass gives it: the loss knows a factor S, and the Gauss-Newton matrix
is the Hessian. All else is ½ · E[trace/n · ‖Q(a) − a‖²], at all bit-widths. Where neither can be trusted the increase
is measured (:mod:`measure_untrusted`), and no width is predicted to hurt less than a wider one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hessrank.analysis.estimators import Weight
from hessrank.analysis.estimators.base import find_target
from hessrank.analysis.estimators.choose import find_exact_parts, name_curved_layers
from hessrank.analysis.options import Options
from hessrank.analysis.ranking_inputs import RankingInputs
from hessrank.analysis.rounding.error_pass import RoundingErrors
from hessrank.analysis.rounding.measure_untrusted import NOISY, WIPED_OUT, Doubt, make_monotonic, measure_increases
from hessrank.analysis.rounding.measured_increase import QuantizedTensor
from hessrank.analysis.rounding.quadratic_form_sampler import RoundingDraws, distribute_draws
from hessrank.analysis.rounding.quantize import measure_weight_errors
from hessrank.analysis.sampling.probe_runner import ProbeRunner
from hessrank.analysis.sampling.rank_order import RankOrder
from hessrank.analysis.sampling.resumable_pass import Journal
from hessrank.analysis.sampling.trace_samples import TraceSamples
from hessrank.analysis.statistics import Array, average_groups
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
        draws: the increases that were drawn, for some or all of the layers; None if none was.
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
        """Return the layers' increases, shape (layers, bits), and which are measured."""
        count = len(self.values) - len(self.weights)
        return self.values[:count], self.measured[:count]

    def of_weights(self) -> Mapping[Weight, tuple[Array, NDArray[np.bool_]]]:
        """Return the increase of every weight at each bit-width, and which are measured."""
        first = len(self.values) - len(self.weights)
        return {w: (self.values[i], self.measured[i]) for i, w in enumerate(self.weights, start=first)}

    def order(self, traces: TraceSamples, width: int, tolerance: float) -> RankOrder | None:
        """Return the layers' order by the increases at ``width`` bits; None without draws.

        The replicates are those of the draws: samples, or blocks of draws where there is one sample only; they are
        scaled to what the table says. A layer that the formula is for keeps the replicates of its trace.

        Args:
            traces: the traces.
            width: one of the bit-widths.
            tolerance: relative difference that does not matter.
        """
        draws = self.draws
        if draws is None:
            return None
        rows = _find_rows(traces, draws)[: len(draws.layers)]
        drawn, formula = draws.replicates(width), traces.key_replicates()
        others = [row for row in range(len(formula)) if row not in set(rows)]
        tables = {tuple(rows): drawn} | ({tuple(others): formula[others]} if others else {})
        count = min((table.shape[1] for table in tables.values() if table.shape[1] > 1), default=1)  # 1: exact
        keys, share = np.zeros((len(formula), count)), traces.probe_share()
        for places, table in tables.items():
            keys[list(places)] = average_groups(table, count)
        share[rows] = draws.noise_share(width)
        means, wanted = keys.mean(1), self.of_layers()[0][:, self.bits.index(width)]
        keys *= np.where(means != 0, wanted / np.where(means != 0, means, 1), 1)[:, None]
        exact = draws.exact and (not others or traces.exact)
        order = RankOrder.judge(keys, share, tolerance, certain=exact and traces.num_samples == 1)
        if exact or not order.open_pairs:
            return replace(order, stopped_by="exact" if exact else "settled")
        return replace(order, stopped_by="increase-probes" if order.within_reach else "samples")

    def record(self, layer_names: Sequence[str]) -> dict[str, Any]:
        """Return how the increases were found; ``layer_names`` are in order of execution."""
        draws = self.draws
        return {
            "method": "rounding errors" if draws else "trace",
            "bits": list(draws.bits) if draws else [],
            "draws": sum(draws.counts) if draws else 0,
            "exact": draws.exact if draws else False,
            "from_trace": {
                "layers": [name for name in layer_names if not draws or name not in draws.layers],
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
    inputs: RankingInputs,
    runner: ProbeRunner,
    journal: Journal,
    traces: TraceSamples,
    errors: RoundingErrors,
    options: Options,
) -> Increases:
    """Predict the increase for every layer, weight and bit-width.

    It is estimated from the rounding errors where that is exact, else predicted from the traces, and measured where
    the prediction is doubtful.

    Args:
        inputs: what is ranked.
        runner: runs the draws.
        journal: keeps what is found, as the stages ``increases``, ``checked`` and ``measured``.
        traces: the traces.
        errors: what the samples show of rounding each layer to ``options.bits``.
        options: ``increase_probes`` random probes in all, spread over the samples; 0 draws and measures nothing.
    """
    weights, bits, draws = traces.weights, options.bits, options.increase_probes
    of_weights = [
        measure_weight_errors(module_of(inputs.network, weight), weight.parameter, bits) for weight in weights
    ]
    moved, wiped = np.array(of_weights).reshape(-1, 2, len(bits)).swapaxes(0, 1)
    by_sample = _predict_from_traces(traces, errors.errors, moved)
    drawn, why = _plan_draws(inputs, traces, errors, options)
    noise = np.zeros(by_sample.shape[:2])
    if drawn is not None:
        drawn.run(inputs, runner, journal)
        rows = _find_rows(traces, drawn)
        by_sample[rows], noise[rows] = drawn.per_sample(), drawn.noise()
    values = by_sample.mean(2)
    found: dict[tuple[int, int], float] = {}
    wiped = np.concatenate([errors.wiped.mean(2), wiped])
    doubts = _find_doubts(traces, bits, wiped, values, noise) if draws else []
    if doubts:
        found, doubts = measure_increases(inputs, journal, doubts, by_sample, draws)
    measured = np.zeros(values.shape, dtype=np.bool_)
    for place, increase in found.items():
        values[place], measured[place] = increase, True
    return Increases(tuple(bits), make_monotonic(values, measured), measured, weights, tuple(doubts), drawn, why)


def _predict_from_traces(traces: TraceSamples, of_layers: Array, of_weights: Array) -> Array:
    """Return ½ · trace/n · ‖e‖², shape (layers + weights, bits, samples).

    Args:
        traces: the traces; a weight without one gets NaN.
        of_layers: ‖e‖²/n of the layers, shape (layers, bits, samples).
        of_weights: the same of the weights, shape (weights, bits).
    """
    layers = of_layers * traces.traces_per_sample()[:, None, :] / 2
    weights = traces.weight_traces_per_sample()[:, None, :] * of_weights[:, :, None] / 2
    return np.concatenate([layers, weights])


def _plan_draws(
    inputs: RankingInputs, traces: TraceSamples, errors: RoundingErrors, options: Options
) -> tuple[RoundingDraws | None, str]:
    """Return the draws to take, and why the rest is predicted from the traces."""
    if not options.increase_probes:
        return None, "no probes were asked for"
    network, loss = inputs.network, inputs.loss
    zeros = [torch.zeros_like(tensor) for tensor in output_tensors(inputs.output)]
    if loss.factor(inputs.output, find_target(loss, inputs.first_sample, inputs.output), zeros) is None:
        return None, f"loss {loss.name!r} knows no factor of its curvature"
    known = ~np.isnan(traces.weight_traces_per_sample().mean(1))  # an estimator may leave weights out
    with_trace = [weight for weight, has_trace in zip(traces.weights, known, strict=True) if has_trace]
    layers, weights = find_exact_parts(network, loss, with_trace)
    why = (
        ""
        if len(layers) == len(network.layers)
        else (f"the Gauss-Newton matrix is not the Hessian before {name_curved_layers(network)}")
    )
    if not layers:
        return None, why
    counts = distribute_draws(options.increase_probes, _sample_shares(traces, errors.errors))
    exact = len(counts) * inputs.outputs <= sum(counts) or any(part.deterministic for part in traces.parts)
    counts = [inputs.outputs] * len(counts) if exact else counts
    return RoundingDraws(layers, weights, options.bits, counts, exact=exact), why


def _find_rows(traces: TraceSamples, drawn: RoundingDraws) -> list[int]:
    """Return which rows of the table were drawn."""
    place = {weight: len(traces.rows) + i for i, weight in enumerate(traces.weights)}
    return [*(traces.rows[name] for name in drawn.layers), *(place[weight] for weight in drawn.weights)]


def _find_doubts(traces: TraceSamples, bits: Sequence[int], wiped: Array, values: Array, noise: Array) -> list[Doubt]:
    """Return the predictions that are not trusted.

    They are those where most of a tensor rounds to 0, and those whose draws are too noisy.
    """
    sizes = np.maximum(wiped / WIPED_OUT, noise / NOISY)
    names = [(name, None) for name in traces.layer_names] + [(w.calls[0], w) for w in traces.weights]
    places = zip(*np.nonzero((sizes > 1) & np.isfinite(values)), strict=True)
    return [
        Doubt(
            int(row),
            int(column),
            QuantizedTensor(names[row][0], bits[column], names[row][1]),
            float(sizes[row, column]),
        )
        for row, column in places
    ]


def _sample_shares(traces: TraceSamples, errors: Array) -> Array:
    """Return each sample's share of the increase that the traces predict.

    It is the mean over layers and bit-widths.
    """
    samples = errors.shape[2]
    found = np.abs(errors * traces.traces_per_sample()[:, None, :]).reshape(-1, samples)
    found = found[found.sum(1) > 0]
    return np.asarray((found / found.sum(1, keepdims=True)).mean(0)) if len(found) else np.full(samples, 1 / samples)
