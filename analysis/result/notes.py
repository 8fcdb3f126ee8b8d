"""What a reader should know before trusting a ranking, a sentence each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from hessrank.analysis.estimators.choose import FIRST_ORDER
from hessrank.analysis.losses.cross_entropy import IGNORED
from hessrank.analysis.losses.losses import Loss
from hessrank.analysis.sampling.sampler import Rounds
from hessrank.analysis.statistics import Array
from hessrank.data.batch import Batch
from hessrank.network.layer_survey import find_never_run
from hessrank.network.network import Network
from hessrank.network.weights import Weight, computed_weights, without_trace
from hessrank.text import listed

_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # how a spreadsheet's formula begins
_WORTH_TELLING = ("curvature-propagation", "hutchinson")  # if they do some of the layers


def of_network(network: Network, weights: Sequence[Weight]) -> list[str]:
    """Return what of the network was not ranked, or not as usual."""
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


def of_choices(rounds: Rounds) -> list[str]:
    """Return which layers had an estimator worth telling, and where it found no influence at all."""
    notes = []
    if zero := int((rounds.trace_replicates().mean(1) == 0).sum()):
        notes.append(f"{zero} traces are exactly 0: no influence on the output, or one too small for this precision")
    notes.extend(
        f"{part.choice.estimator} for {len(part.choice.layers)} layers: {part.choice.why}"
        for part in rounds.parts
        if part.choice.estimator in _WORTH_TELLING and part.choice.layers and len(rounds.parts) > 1
    )
    return notes


def of_machines(rounds: Rounds, copies: int) -> list[str]:
    """Return what had to be done in smaller portions, and who had nothing to do.

    Args:
        rounds: the finished sampling.
        copies: how many copies of a sample it began with.
    """
    notes, batches = [], rounds.batches
    wide = sorted({p.choice.estimator for p in rounds.parts} - set(FIRST_ORDER))
    if rounds.precision is not None and wide:
        notes.append(f"half precision is for first-order passes: {listed(wide)} worked in the network's own")
    left = min(batches.team.gather_values(rounds.copies))
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


def verdict(rounds: Rounds, max_probes: int, increase_probes: int) -> list[str]:
    """Return what the sampling could not settle, and what the signs say.

    Args:
        rounds: the finished sampling.
        max_probes: most probes a sample that were allowed.
        increase_probes: and of the increases.
    """
    notes = []
    negative = int((rounds.trace_replicates().mean(1) < 0).sum())
    if negative:
        notes.append(
            f"{negative} traces are negative: quantizing these layers may lower a loss that is not at its minimum"
        )
    if unequal(rounds.traces_per_sample()):
        notes.append(
            f"the {len(rounds.batches)} samples are very unequal, a few carry most of a trace: the intervals are "
            "likely too narrow below; use more of them (--num-samples)"
        )
    if rounds.open:
        of = len(rounds.settled) - 1
        remedy = {
            "max-probes": f"{max_probes} probes a sample are spent: raise --max-probes or --tolerance",
            "increase-probes": f"{increase_probes} probes for increases are spent: raise --increase-probes",
        }.get(rounds.stopped_by, "the samples differ, more probes would not help: use more of them (--num-samples)")
        notes.append(f"{rounds.open} of {of} neighboring pairs are not certainly ordered; {remedy}")
    return notes


def about_labels(loss: Loss, one: Batch) -> list[str]:
    """Return a note where labels repeat the tokens: those for a model that shifts them when it computes its own loss.

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


def unequal(traces: Array) -> bool:
    """Return whether too few samples are too different for an interval of their mean to hold 95 % of the time.

    Measured on a trained classifier (docs/figures.md): with a spread larger than the mean, fewer than about 64
    samples see too little of the tail.
    """
    count = traces.shape[1]
    if not 2 <= count < 64:
        return False
    mean = np.abs(traces.mean(1))
    spread = traces.std(1, ddof=1)[mean > 0] / mean[mean > 0]
    return bool(np.median(spread) > 1)
