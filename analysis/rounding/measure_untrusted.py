"""Measures increases where the second-order prediction cannot be trusted.

½ eᵀHe is blind where rounding wipes most of a tensor out: with one large token, all others round to 0, and a norm
behind them divides by what is left. There e is about −a, along which a norm does not move at all, and fewer bits are
predicted to hurt *less*; a saturated softmax or gate does not see how far it is moved. Such predictions are
checked on a few samples, and where they do not hold, a forward pass a sample measures what they should have been.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hessrank.analysis.losses import Self
from hessrank.analysis.ranking_inputs import RankingInputs
from hessrank.analysis.rounding.measured_increase import IncreaseMeter, QuantizedTensor, agree
from hessrank.analysis.sampling.resumable_pass import Journal
from hessrank.analysis.statistics import Array
from hessrank.data.batch import Batch
from hessrank.distributed import Team

WIPED_OUT = 0.6  # share of a tensor's elements that round to 0, above which a prediction is doubted
NOISY = 0.5  # relative standard error of the draws, likewise
CHECKED = 4  # samples that a doubt is checked on
AGREE, AGREE_EACH = 1.6, 4.0  # factors within which a prediction holds there, for all of them together and for each
SAMPLES = 16  # that a measurement takes, at most
PASSES = 2  # forward passes of a sample for each draw that was asked for, to check and again to measure
_FIRST = (4, 6, 8, 10)  # widths that policies take by default come first


@dataclass(frozen=True)
class Doubt:
    """A prediction that is not trusted.

    Attributes:
        row: of the table of increases: layers in the order of execution, then weights.
        column: of its bit-widths.
        what: tensor and bit-width.
        size: how much of the tensor is wiped out, or how noisy the draws are: the larger the worse.
    """

    row: int
    column: int
    what: QuantizedTensor
    size: float


def measure_increases(
    inputs: RankingInputs, journal: Journal, doubts: Sequence[Doubt], predicted: Array, draws: int
) -> tuple[dict[tuple[int, int], float], list[Doubt]]:
    """Measure the increases whose predictions do not hold.

    Each doubt is first checked on a few samples; where prediction and measurement are apart there, more are measured.

    Args:
        inputs: what is ranked.
        journal: keeps what is found, as the stages ``checked`` and ``measured``.
        doubts: what is not trusted.
        predicted: the increases by sample, shape (rows, bits, samples).
        draws: how many draws were asked for; :data:`PASSES` forward passes each are spent at most.

    Returns:
        increases in units of the loss by row and column, the mean over up to :data:`SAMPLES` samples; and the doubts
        that are left.
    """
    count, passes = predicted.shape[2], PASSES * draws
    ordered = sorted(doubts, key=lambda doubt: (doubt.what.bits not in _FIRST, -doubt.size, doubt.row, doubt.column))
    order = np.argsort(-np.nansum(np.abs(predicted), (0, 1)), kind="stable")
    num_checked = min(CHECKED, count)
    places = range(1, 2 * num_checked, 2)  # from large to small, evenly
    telling = [int(order[place * count // (2 * num_checked)]) for place in places]
    checked = ordered[: passes // len(telling)]
    found = _measure_on_samples(inputs, journal, "checked", checked, telling)
    disagreeing = []
    for doubt, measured in zip(checked, found, strict=True):
        values = predicted[doubt.row, doubt.column, telling]
        together = agree(float(values.mean()), float(measured.mean()), AGREE)
        if not (together and all(agree(p, m, AGREE_EACH) for p, m in zip(values, measured, strict=True))):
            disagreeing.append(doubt)
    spaced = range(0, count, math.ceil(count / SAMPLES))
    chosen = disagreeing[: passes // len(spaced)]
    means = _measure_on_samples(inputs, journal, "measured", chosen, spaced).mean(1)
    left = [*disagreeing[len(chosen) :], *ordered[len(checked) :]]
    means = np.where(np.isnan(means), np.inf, means)  # what such a rounding breaks, no policy should take
    return {(d.row, d.column): float(mean) for d, mean in zip(chosen, means, strict=True)}, left


def _measure_on_samples(
    inputs: RankingInputs, journal: Journal, stage: str, doubts: Sequence[Doubt], samples: Sequence[int]
) -> Array:
    """Measure the increase of each doubt on samples, shape (doubts, samples)."""
    found = _MeasuredTable(len(doubts), len(samples))
    if not doubts:
        return found.values
    batches = inputs.batches.select(samples)
    ranges = {name: (fact.low, fact.high) for name, fact in inputs.facts.items()}
    masked = {name: fact.axis.masked for name, fact in inputs.facts.items() if fact.axis.masked is not None}
    meter = IncreaseMeter(inputs.network, batches, inputs.loss, ranges, masked)

    def measure(what: QuantizedTensor, number: int, batch: Batch) -> None:
        increase = meter.increase_on(batch, what)
        if not isinstance(inputs.loss, Self):  # a loss with a slope: what is even in e, as the second order is
            increase = (increase + meter.increase_on(batch, what, -1.0)) / 2
        found.values[number, list(batch.samples)] = increase

    journal.open(stage, batches, {"values": found}).run(
        [partial(measure, doubt.what, number) for number, doubt in enumerate(doubts)],
        journal.report_on(stage, len(doubts) * len(batches)),
    )
    return found.values


class _MeasuredTable:
    """Measured increases by tensor and sample.

    It is a :class:`hessrank.analysis.sampling.resumable_pass.Table`.
    """

    def __init__(self, tensors: int, samples: int) -> None:
        self.values: Array = np.zeros((tensors, samples))

    def share(self, team: Team) -> None:
        self.values = team.gather(self.values, 1)

    def state(self) -> dict[str, NDArray[Any]]:
        return {"values": self.values}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        self.values = state["values"]


def make_monotonic(increases: Array, measured: NDArray[np.bool_]) -> Array:
    """Return increases whose size never rises with the bit-width.

    What was measured stays, but where more bits were measured to hurt more; a prediction is kept between what was
    measured at more and at fewer bits, and then each width has the most of its own and all wider ones.

    Args:
        increases: tensors × bit-widths, the widths ascending; NaN where nothing is known.
        measured: where they were measured, of the same shape.
    """
    anchors = _accumulate_from_wider(np.where(measured, np.abs(increases), -np.inf))
    ceilings = np.minimum.accumulate(np.where(measured, anchors, np.inf), axis=1)
    sizes = np.clip(np.abs(increases), np.maximum(anchors, 0.0), ceilings)
    return np.asarray(np.copysign(_accumulate_from_wider(sizes), increases))


def _accumulate_from_wider(values: Array) -> Array:
    """Return the largest value of each width and all wider ones."""
    return np.maximum.accumulate(values[:, ::-1], axis=1)[:, ::-1]
