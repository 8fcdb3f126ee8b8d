"""A few probes from every promising cut, to see how far they spread, before the ones that count."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from hessrank.analysis.estimators.base import FEW_OUTPUTS, OUTPUT, Work
from hessrank.analysis.estimators.curvature_propagation.estimator import Propagation, Stretch
from hessrank.analysis.estimators.curvature_propagation.layer_recording import Layout
from hessrank.analysis.estimators.curvature_propagation.probe_variance import Spread, best_of
from hessrank.analysis.estimators.curvature_propagation.segments import Costs, Measured, Planned, best_stretches
from hessrank.data.batch import Batch
from hessrank.network.layer_facts import LayerFacts
from hessrank.network.network import Network

PROBES = 24
RANK = 8
_MOST_CUTS, _FEWEST_CUTS = 10, 3
_REACH = 6  # cuts that a stretch may span
_PER_ELEMENT = 8.0  # multiply-accumulates that an activation's element is worth
_PER_CALL = 1e5  # and a call


def run_pilot(work: Work, facts: Mapping[str, LayerFacts], outputs: int) -> list[Planned]:
    """Find out how to estimate the traces of the layers of ``work`` at the least cost.

    Args:
        work: one sample; at least two copies of it fit into a batch.
        facts: what the layers cost.
        outputs: number of elements that the network returns for a sample.
    """
    network, layout = work.network, Layout.of(work.network, work.batch)
    place = {layer.name: layer.execution_index for layer in network.layers}
    wanted = sorted(place[name] for name in work.layers)
    ends = promising_cuts(layout, wanted)
    measured, spreads = [], []
    for i, end in enumerate(ends):
        first = ends[i - _REACH] + 1 if i >= _REACH else 0
        found, spread = _measure(work, Stretch(first, end, _rank(end, layout, outputs)), layout, outputs)
        measured.append(found)
        spreads.append(spread)
    plan = best_stretches(wanted, measured, best_of(spreads), costs_of(network, facts))
    at_output = {one.stretch.last for one in measured if one.at_output}
    sample = work.batch.samples[0]
    return [replace(_described(part, network, layout, at_output), sample=sample) for part in plan]


def kept(plan: Sequence[Planned]) -> list[dict[str, Any]]:
    """Return a plan as plain facts; what follows from the network is left out."""
    return [
        {
            "stretch": None if part.stretch is None else asdict(part.stretch),
            "layers": list(part.layers),
            "rate": part.rate,
            "hutchinson": list(part.hutchinson),
            "fixed": part.fixed,
            "probed_at": part.probed_at,
            "sample": part.sample,
        }
        for part in plan
    ]


def restored(facts: Sequence[Mapping[str, Any]], network: Network, batch: Batch) -> list[Planned]:
    """Return the plan that :func:`kept` made facts of.

    Args:
        facts: the plan.
        network: the network that it is for.
        batch: samples to run it on.
    """
    if not facts:
        return []
    layout, plan = Layout.of(network, batch), []
    for told in facts:
        stretch = None if told["stretch"] is None else Stretch(**told["stretch"])
        region = None if stretch is None else layout.region(stretch.first, stretch.last)
        layers, variances = tuple(told["layers"]), tuple(told["hutchinson"])
        plan.append(
            Planned(
                stretch, layers, told["rate"], variances, told["fixed"], region, told["probed_at"], told["sample"]
            )
        )
    return plan


def _described(part: Planned, network: Network, layout: Layout, at_output: Collection[int]) -> Planned:
    """Return a stretch with its region, and the names of the layers at its cut."""
    stretch = part.stretch
    if stretch is None:
        return part
    names = [network.layers[i].name for i in layout.open_at(stretch.last) if i >= stretch.first]
    probed_at = OUTPUT if stretch.last in at_output else " ".join(names)
    return replace(part, region=layout.region(stretch.first, stretch.last), probed_at=probed_at)


def _measure(work: Work, stretch: Stretch, layout: Layout, outputs: int) -> tuple[Measured, Spread]:
    work = replace(work, indices=range(PROBES), weights=[])
    propagation = Propagation(work, stretch, layout.region(stretch.first, stretch.last))
    spread = Spread(work, propagation)
    fixed = (outputs if propagation.at_output else stretch.rank) if stretch.rank else 0
    return Measured(stretch, fixed, propagation.at_output, spread.variance), spread


def _rank(end: int, layout: Layout, outputs: int) -> int:
    return 0 if end == len(layout.inputs) - 1 and outputs > FEW_OUTPUTS else RANK


def costs_of(network: Network, facts: Mapping[str, LayerFacts]) -> Costs:
    """Return what a backward pass through each layer costs, in multiply-accumulates."""
    numbers = [facts[layer.name] for layer in network.layers]
    return Costs(np.array([fact.macs + _PER_ELEMENT * fact.numel + _PER_CALL for fact in numbers]))


def promising_cuts(layout: Layout, wanted: Sequence[int]) -> list[int]:
    """Return places to cut a network at: where a single layer is read behind, evenly spread, and the output.

    Args:
        layout: the network's layers.
        wanted: the layers that need a cut behind them, by place.
    """
    last = len(layout.inputs) - 1
    everywhere = range(min(wanted, default=0), last)
    narrow = [i for i in everywhere if layout.open_at(i) == [i]]
    candidates = narrow if len(narrow) >= _FEWEST_CUTS else list(everywhere)
    chosen = np.linspace(0, len(candidates) - 1, min(_MOST_CUTS, len(candidates))).round().astype(int)
    return [*(candidates[i] for i in sorted(set(chosen.tolist()))), last]
