"""Measures the variance of a few probes at some cuts, to choose the cheapest."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from hessrank.analysis.estimators.base import FEW_OUTPUTS, OUTPUT, Work
from hessrank.analysis.estimators.curvature_propagation.estimator import Propagation, Segment
from hessrank.analysis.estimators.curvature_propagation.layer_recording import Layout
from hessrank.analysis.estimators.curvature_propagation.probe_variance import (
    ProbeVariance,
    estimate_hutchinson_variance,
)
from hessrank.analysis.estimators.curvature_propagation.segments import (
    MeasuredSegment,
    PlannedSegment,
    SegmentCosts,
    choose_segments,
)
from hessrank.data.batch import Batch
from hessrank.network.layer_facts import LayerFacts
from hessrank.network.network import Network

PROBES = 24
RANK = 8
_MOST_CUTS, _FEWEST_CUTS = 10, 3
_REACH = 6  # cuts that a segment may span
_PER_ELEMENT = 8.0  # multiply-accumulates that an activation's element is worth
_PER_CALL = 1e5  # and a call


def run_pilot(work: Work, facts: Mapping[str, LayerFacts], outputs: int) -> list[PlannedSegment]:
    """Plan how to estimate the traces of the layers of ``work`` at the least cost.

    Args:
        work: one sample; at least two copies of it fit into a batch.
        facts: what the layers cost.
        outputs: number of elements that the network returns for a sample.
    """
    network, layout = work.network, Layout.of(work.network, work.batch)
    place = {layer.name: layer.execution_index for layer in network.layers}
    wanted = sorted(place[name] for name in work.layers)
    ends = choose_cuts(layout, wanted)
    begins = [0] * _REACH + [end + 1 for end in ends]
    found = [_measure_segment(work, layout, first, end, outputs) for first, end in zip(begins, ends, strict=False)]
    measured, variances = zip(*found, strict=True)
    plan = choose_segments(wanted, measured, estimate_hutchinson_variance(variances), estimate_costs(network, facts))
    at_output = {one.segment.last for one in measured if one.at_output}
    sample = work.batch.samples[0]
    return [replace(_describe_segment(part, network, layout, at_output), sample=sample) for part in plan]


def describe_plan(plan: Sequence[PlannedSegment]) -> list[dict[str, Any]]:
    """Return a plan as JSON values; what follows from the network is left out."""
    return [
        {
            "segment": None if part.segment is None else asdict(part.segment),
            "layers": list(part.layers),
            "rate": part.rate,
            "hutchinson": list(part.hutchinson),
            "fixed": part.fixed,
            "probed_at": part.probed_at,
            "sample": part.sample,
        }
        for part in plan
    ]


def restore_plan(facts: Sequence[Mapping[str, Any]], network: Network, batch: Batch) -> list[PlannedSegment]:
    """Return the plan that :func:`describe_plan` described.

    Args:
        facts: the plan.
        network: the network that it is for.
        batch: samples to run it on.
    """
    if not facts:
        return []
    layout, plan = Layout.of(network, batch), []
    for entry in facts:
        segment = None if entry["segment"] is None else Segment(**entry["segment"])
        region = None if segment is None else layout.region(segment.first, segment.last)
        layers, variances = tuple(entry["layers"]), tuple(entry["hutchinson"])
        plan.append(
            PlannedSegment(
                segment, layers, entry["rate"], variances, entry["fixed"], region, entry["probed_at"], entry["sample"]
            )
        )
    return plan


def _describe_segment(
    part: PlannedSegment, network: Network, layout: Layout, at_output: Collection[int]
) -> PlannedSegment:
    """Return a segment with its region, and the names of the layers at its cut."""
    segment = part.segment
    if segment is None:
        return part
    names = [network.layers[i].name for i in layout.find_ends(segment.last) if i >= segment.first]
    probed_at = OUTPUT if segment.last in at_output else " ".join(names)
    return replace(part, region=layout.region(segment.first, segment.last), probed_at=probed_at)


def _measure_segment(
    work: Work, layout: Layout, first: int, end: int, outputs: int
) -> tuple[MeasuredSegment, ProbeVariance]:
    """Measure the variance of probes from the cut behind ``end``, back to ``first``."""
    many_outputs = end == len(layout.inputs) - 1 and outputs > FEW_OUTPUTS
    segment = Segment(first, end, 0 if many_outputs else RANK)
    work = replace(work, indices=range(PROBES), weights=[])
    propagation = Propagation(work, segment, layout.region(first, end))
    at_output, variances = propagation.at_output, ProbeVariance(work, propagation)
    fixed = (outputs if at_output else segment.rank) if segment.rank else 0
    return MeasuredSegment(segment, fixed, at_output, variances.variance), variances


def estimate_costs(network: Network, facts: Mapping[str, LayerFacts]) -> SegmentCosts:
    """Return what a backward pass through each layer costs, in multiply-accumulates."""
    numbers = [facts[layer.name] for layer in network.layers]
    return SegmentCosts(np.array([fact.macs + _PER_ELEMENT * fact.numel + _PER_CALL for fact in numbers]))


def choose_cuts(layout: Layout, wanted: Sequence[int]) -> list[int]:
    """Choose where to cut a network: evenly, and at its output.

    A cut behind which a single layer is read is preferred.

    Args:
        layout: the network's layers.
        wanted: the layers that need a cut behind them, by place.
    """
    last = len(layout.inputs) - 1
    everywhere = range(min(wanted, default=0), last)
    narrow = [i for i in everywhere if layout.find_ends(i) == [i]]
    candidates = narrow if len(narrow) >= _FEWEST_CUTS else list(everywhere)
    chosen = np.linspace(0, len(candidates) - 1, min(_MOST_CUTS, len(candidates))).round().astype(int)
    return [*(candidates[i] for i in sorted(set(chosen.tolist()))), last]
