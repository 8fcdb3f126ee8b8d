"""Divides a network into segments so that all traces together cost least.

Every segment is probed at its end. A longer one shares its probes among more layers, and their variance is larger;
the pilot has measured it. What no segment does well is left to Hutchinson's estimator. Costs are counted in
multiply-accumulates, not timed, so that the same command chooses the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hessrank.analysis.estimators.curvature_propagation.coupled_regions import Region
from hessrank.analysis.estimators.curvature_propagation.cut_hessian import BALANCE_PROBES
from hessrank.analysis.estimators.curvature_propagation.estimator import Segment
from hessrank.analysis.statistics import Array

RATES = (0.5, 1.0, 2.0, 4.0)
_PROBES = 8  # that a forward pass is meant for

# What each step costs at one layer, in backward passes through it (measured on transformers; docs/figures.md).
_DOUBLE_BACKWARD = 2.0
_SEND_BACK = 4.0
_SEND_FIXED = 2.5
_RECORD = 4.0  # forward, twice, the first derivatives and the balance of pairs


@dataclass(frozen=True)
class SegmentCosts:
    """What a backward pass costs at each layer.

    Attributes:
        work: of one backward pass through each layer, in multiply-accumulates.
    """

    work: Array

    def behind(self, layer: int) -> float:
        """Return the cost of one product with the Hessian at ``layer``."""
        return _DOUBLE_BACKWARD * float(self.work[layer + 1 :].sum())

    def along(self, first: int, last: int) -> float:
        """Return the cost of one backward pass through some layers."""
        return float(self.work[first : last + 1].sum())

    def segment(self, segment: Segment, fixed: int, probes: float, *, at_output: bool) -> float:
        """Return the cost of a segment with ``probes`` random and ``fixed`` exact pairs."""
        product = 0.0 if at_output else self.behind(segment.last)
        along = self.along(segment.first, segment.last)
        products = probes + (0 if at_output else 2 * fixed + BALANCE_PROBES)
        sent = (_SEND_BACK * probes + _SEND_FIXED * fixed + _RECORD) * along
        return products * product + sent + _RECORD * self.along(segment.last + 1, len(self.work)) / 2


@dataclass(frozen=True)
class MeasuredSegment:
    """What the pilot has found of one cut.

    Attributes:
        segment: the cut, and how far back from it was looked.
        fixed: how many pairs without noise it makes.
        at_output: whether the cut is the output's, where the Hessian costs nothing.
        variance: of one probe at each layer, by place; NaN beyond its reach.
    """

    segment: Segment
    fixed: int
    at_output: bool
    variance: Array


@dataclass(frozen=True)
class PlannedSegment:
    """A segment, and the layers that it is used for.

    Attributes:
        segment: where it lies, and how it is probed; None stands for Hutchinson's estimator.
        layers: the layers, by place.
        rate: how many probes it takes where Hutchinson's estimator takes one.
        hutchinson: the variance of one of Hutchinson's probes at each of the layers, on the pilot's sample.
        fixed: how many pairs without noise it makes.
        region: the segment's layers, grouped as they are recorded.
        probed_at: the names of the layers at its cut, or ``output``.
        sample: which one the pilot was run on.
    """

    segment: Segment | None
    layers: tuple[int, ...]
    rate: float = 1.0
    hutchinson: tuple[float, ...] = ()
    fixed: int = 0
    region: Region | None = None
    probed_at: str = ""
    sample: int = 0


def choose_segments(
    wanted: Sequence[int], measured: Sequence[MeasuredSegment], hutchinson: tuple[Array, Array], costs: SegmentCosts
) -> list[PlannedSegment]:
    """Choose the cheapest segments that match the error of Hutchinson's estimator.

    Args:
        wanted: the layers, by place, in order.
        measured: the cuts.
        hutchinson: the variance of its estimate at each layer, and a cautious lower estimate, which decides.
        costs: what the layers cost.
    """
    alone = {layer: _PROBES * costs.behind(layer) for layer in wanted}
    ends = sorted({one.segment.last for one in measured})
    best: dict[int, tuple[float, list[PlannedSegment]]] = {-1: (0.0, [])}
    for end in ends:
        options = []
        for begin, (cost, plan) in list(best.items()):
            layers = [layer for layer in wanted if begin < layer <= end]
            options.append(
                (cost + sum(alone[layer] for layer in layers), [*plan, PlannedSegment(None, tuple(layers))])
            )
            for one in (m for m in measured if m.segment.last == end):
                for more, planned in _plan_segment(begin + 1, one, layers, hutchinson, costs, alone):
                    options.append((cost + more, [*plan, *planned]))
        best[end] = min(options, key=lambda option: option[0])
    plan = best[ends[-1]][1]
    # what is left to Hutchinson's estimator is one piece
    left = tuple(sorted(layer for planned in plan if planned.segment is None for layer in planned.layers))
    return [planned for planned in plan if planned.segment is not None] + (
        [PlannedSegment(None, left)] if left else []
    )


def _plan_segment(
    first: int,
    one: MeasuredSegment,
    layers: Sequence[int],
    hutchinson: tuple[Array, Array],
    costs: SegmentCosts,
    alone: Mapping[int, float],
) -> Iterator[tuple[float, list[PlannedSegment]]]:
    """Yield the cost and the plan of one segment at each rate.

    Layers that it does not do well enough are left to Hutchinson's estimator.
    """
    if not layers or np.isnan(one.variance[list(layers)]).any():
        return
    segment, (likely, cautious) = Segment(first, one.segment.last, one.segment.rank), hutchinson
    for rate in RATES:
        done = [layer for layer in layers if one.variance[layer] <= rate * cautious[layer]]
        if not done:
            continue
        left = tuple(layer for layer in layers if layer not in set(done))
        probes = math.ceil(rate * _PROBES)
        cost = costs.segment(segment, one.fixed, probes, at_output=one.at_output)
        variances = tuple(float(likely[layer]) for layer in done)
        planned = [PlannedSegment(segment, tuple(done), rate, variances, one.fixed)] + (
            [PlannedSegment(None, left)] if left else []
        )
        yield cost + sum(alone[layer] for layer in left), planned
