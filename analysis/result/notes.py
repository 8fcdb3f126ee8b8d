"""Notes for the reader of a ranking: each a sentence on what limits its trust."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from hessrank.analysis.estimators.choose import FIRST_ORDER
from hessrank.analysis.losses import Loss
from hessrank.analysis.losses.cross_entropy import IGNORED
from hessrank.analysis.options import Options
from hessrank.analysis.ranking_inputs import RankingInputs
from hessrank.analysis.sampling.probe_runner import ProbeRunner
from hessrank.analysis.sampling.rank_order import RankOrder
from hessrank.analysis.sampling.trace_samples import TraceSamples
from hessrank.analysis.statistics import Array
from hessrank.data.batch import Batch
from hessrank.network.layer_survey import find_never_run
from hessrank.network.network import Network
from hessrank.network.sample_batches import SampleBatches
from hessrank.network.weights import Weight, computed_weights, without_trace
from hessrank.text import listed

_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # how a spreadsheet's formula begins
_WORTH_TELLING = ("curvature-propagation", "hutchinson")  # if they do some of the layers


def note_network(network: Network, weights: Sequence[Weight]) -> list[str]:
    """Return which parts of the network were not ranked, or not as usual."""
    notes = []
    if network.why_hooks:
        notes.append(f"ranked module by module: {network.why_hooks}")
    if network.left_out:
        notes.append(f"{listed(network.left_out)} write into something else in place: not ranked")
    if formulas := [layer.name for layer in network.layers if layer.name.startswith(_FORMULA)]:
        notes.append(
            f"{listed(map(repr, formulas))}: a spreadsheet takes such a name for a formula: import the column as text"
        )
    if idle := find_never_run(network):
        notes.append(f"{listed(idle)} never ran on this data: not ranked")
    notes.extend(
        f"{listed(weight.calls)} share one weight: its trace is that of all calls together, "
        f"in the row of {weight.calls[0]}"
        for weight in weights
        if len(weight.calls) > 1
    )
    known, computed = (
        "only convolutions, linear layers and embeddings of the data",
        computed_weights(network, weights),
    )
    uncounted: dict[str, list[str]] = {}
    for path in without_trace(network, weights):
        uncounted.setdefault(computed.get(path, known), []).append(path)
    notes.extend(f"no weight trace for {listed(paths)}: {why}" for why, paths in uncounted.items())
    return notes


def note_masked_scores(inputs: RankingInputs) -> list[str]:
    """Return which layers hold masked scores."""
    masked = [name for name in inputs.layer_names if inputs.facts[name].axis.masked is not None]
    return [f"masked scores in {listed(masked)}: no part of their ranges, and never quantized"] if masked else []


def note_estimators(traces: TraceSamples) -> list[str]:
    """Return which layers had a special estimator, and how many traces are 0."""
    notes = []
    if zero := int((traces.trace_replicates().mean(1) == 0).sum()):
        notes.append(f"{zero} traces are exactly 0: no influence on the output, or one too small for this precision")
    notes.extend(
        f"{part.choice.estimator} for {len(part.choice.layers)} layers: {part.choice.why}"
        for part in traces.parts
        if part.choice.estimator in _WORTH_TELLING and part.choice.layers and len(traces.parts) > 1
    )
    return notes


def note_resources(batches: SampleBatches, traces: TraceSamples, runner: ProbeRunner, copies: int) -> list[str]:
    """Return where memory ran out, and whether processes had no samples.

    Args:
        batches: the samples.
        traces: the traces.
        runner: what ran the estimators.
        copies: how many copies of a sample it began with.
    """
    notes = []
    wide = sorted({p.choice.estimator for p in traces.parts} - set(FIRST_ORDER))
    if runner.precision is not None and wide:
        notes.append(f"half precision is for first-order passes: {listed(wide)} worked in the network's own")
    left = min(batches.team.gather_values(runner.copies))
    if left < copies:
        notes.append(f"memory ran out: went on with {left} probes side by side")
    if any(batches.team.gather_values(batches.halved)):
        size = min(batches.team.gather_values(batches.batch_size))
        notes.append(f"memory ran out: went on with batches of {size}")
    if len(batches) < batches.team.size:
        notes.append(f"{batches.team.size} processes share {len(batches)} samples: some had nothing to do")
    if len(batches) == 1:
        notes.append("one sample only: the error bars speak of this sample, not of others")
    return notes


def note_order(traces: TraceSamples, order: RankOrder, options: Options) -> list[str]:
    """Return which pairs are not in a certain order, and how many traces are negative.

    Args:
        traces: the traces.
        order: the order of the layers.
        options: what was asked for.
    """
    notes = []
    negative = int((traces.trace_replicates().mean(1) < 0).sum())
    if negative:
        notes.append(
            f"{negative} traces are negative: quantizing these layers may lower a loss that is not at its minimum"
        )
    per_sample = traces.traces_per_sample()
    if are_samples_unequal(per_sample):
        notes.append(
            f"the {per_sample.shape[1]} samples are very unequal, a few carry most of a trace: the intervals are "
            "likely too narrow below; use more of them (--num-samples)"
        )
    if order.open_pairs:
        of = len(order.settled) - 1
        remedy = {
            "max-probes": f"{options.max_probes} probes a sample are spent: raise --max-probes or --tolerance",
            "increase-probes": f"{options.increase_probes} probes for increases are spent: raise --increase-probes",
        }.get(order.stopped_by, "the samples differ, more probes would not help: use more of them (--num-samples)")
        notes.append(f"{order.open_pairs} of {of} neighboring pairs are not certainly ordered; {remedy}")
    return notes


def note_labels(loss: Loss, one: Batch) -> list[str]:
    """Return a note if the labels are the tokens themselves.

    Such labels are for a model that shifts them when it computes its own loss.

    Args:
        loss: the loss.
        one: a sample.
    """
    ids, labels = one.kwargs.get("input_ids"), one.target
    if not (isinstance(ids, Tensor) and isinstance(labels, Tensor)) or ids.shape != labels.shape:
        return []
    counted = labels != getattr(loss, "ignore_index", IGNORED)
    if not loss.needs_target or not bool(counted.any()) or bool((labels != ids)[counted].any()):
        return []
    return [
        "the labels are the input_ids themselves: label t is compared with the logits at t; "
        "for a model of the next token shift them one to the left"
    ]


def are_samples_unequal(traces: Array) -> bool:
    """Return whether the samples are too few and too different for a 95 % interval.

    Measured on a trained classifier (docs/figures.md): with a spread larger than the mean, fewer than about 64
    samples see too little of the tail.
    """
    count = traces.shape[1]
    if not 2 <= count < 64:
        return False
    mean = np.abs(traces.mean(1))
    deviation = traces.std(1, ddof=1)[mean > 0] / mean[mean > 0]
    return bool(np.median(deviation) > 1)
