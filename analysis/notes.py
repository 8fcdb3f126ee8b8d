"""What a reader should know before trusting a ranking, a sentence each."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from hessrank.analysis.batches import Batch
from hessrank.analysis.losses import Loss
from hessrank.analysis.rounds import Rounds
from hessrank.analysis.statistics import Array


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
            f"the {len(rounds.feed)} samples are very unequal, a few carry most of a trace: the intervals are likely "
            "too narrow below; use more of them (--num-samples)"
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
    counted = labels != -100
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
