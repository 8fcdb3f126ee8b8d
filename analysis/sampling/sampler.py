"""Samples traces until the order of the layers is settled.

Each round takes as many probes as all rounds before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from hessrank.analysis.estimators import ESTIMATORS, Estimator, EstimatorChoice
from hessrank.analysis.options import Options
from hessrank.analysis.ranking_inputs import RankingInputs
from hessrank.analysis.sampling.probe_runner import ProbeRunner, split_into_chunks
from hessrank.analysis.sampling.rank_order import RankOrder
from hessrank.analysis.sampling.resumable_pass import Journal
from hessrank.analysis.sampling.trace_samples import EstimatedPart, TraceSamples
from hessrank.analysis.statistics import Array, Replicates
from hessrank.data.batch import Batch
from hessrank.errors import OptionError
from hessrank.user_code import user_code

_AT_FIRST = 16  # probes of all samples together, before the first look
_ENOUGH_TO_CORRECT = 16  # probes of one sample give their variance
_RATES = (0.25, 8.0)  # least and most that a rate is corrected to


@dataclass
class SamplingPart:
    """One estimator at work on its layers and weights.

    Attributes:
        found: what it has found.
        estimator: the estimator.
        taken: probes of its own before this round.
        until: and at the end of it.
    """

    found: EstimatedPart
    estimator: Estimator
    taken: int = 0
    until: int = 0

    @classmethod
    def of(cls, choice: EstimatorChoice, samples: int) -> SamplingPart:
        """Start with nothing estimated."""
        make = ESTIMATORS.resolve_or_import(choice.estimator)
        with user_code(f"estimator {choice.estimator!r}: making it", OptionError):
            estimator = make(**choice.settings)
        fixed = estimator.deterministic
        layers, weights = (
            Replicates(len(names), samples, deterministic=fixed) for names in (choice.layers, choice.weights)
        )
        return cls(EstimatedPart(choice, fixed, layers, weights), estimator)

    def look_ahead(self, goal: int) -> None:
        """Decide how many probes to take in this round, in which others go on to ``goal``."""
        self.taken = self.until
        wanted = 1 if self.found.deterministic else self.found.choice.probes(goal, self.rate())
        self.until = max(self.taken, wanted)

    def rate(self) -> float:
        """Return how many probes to take where others take one.

        It is the planned rate at first.

        A pilot's few probes misjudge some layers. Once there are more, their own variance says how many of them make
        the error of one of Hutchinson's.
        """
        choice, layers = self.found.choice, self.found.layers
        if not choice.hutchinson or layers.num_probes[choice.sample] < _ENOUGH_TO_CORRECT:
            return choice.rate
        aims = np.array(choice.hutchinson)
        needed = layers.variances(choice.sample)[aims > 0] / aims[aims > 0]
        return float(np.clip(needed.max(initial=_RATES[0]), *_RATES))


def sample_traces(
    inputs: RankingInputs,
    runner: ProbeRunner,
    journal: Journal,
    choices: Sequence[EstimatorChoice],
    factors: Array,
    options: Options,
) -> tuple[TraceSamples, RankOrder]:
    """Sample traces until the order of the layers is settled.

    It ends within the tolerance, or when ``options.max_probes`` probes a sample are spent.

    Args:
        inputs: what is ranked.
        runner: runs the estimators.
        journal: keeps what is found, and may have something to go on from.
        choices: which estimator does which layers and weights.
        factors: what a trace is multiplied by to get what is ranked, shape (layers, samples).
        options: what was asked for.

    Returns:
        the estimates, and the order of the layers.
    """
    parts = [SamplingPart.of(choice, len(inputs.batches)) for choice in choices]
    traces = TraceSamples(tuple(inputs.layer_names), tuple(part.found for part in parts), factors)
    sampling = _Sampling(inputs, runner, parts)
    done, goal = 0, min(options.max_probes, max(2, _AT_FIRST // len(inputs.batches)))
    stage = journal.open("probes", inputs.batches, sampling.tables())
    resumed = dict(stage.facts)
    if resumed:
        done, goal = sampling.restore(resumed)
    while True:
        if not resumed:
            sampling.look_ahead(goal)
        resumed = {}
        total = goal if traces.exact else options.max_probes
        report = journal.report_on("probes", total, range(done, goal))
        stage.run(sampling.steps(), report, partial(sampling.facts, done, goal))
        done, goal = goal, min(2 * goal, options.max_probes)
        certain = traces.exact and traces.num_samples == 1
        order = RankOrder.judge(traces.key_replicates(), traces.probe_share(), options.tolerance, certain=certain)
        reason = _find_reason_to_stop(traces, order, all_spent=done >= options.max_probes)
        if reason := inputs.batches.team.broadcast(reason):
            return traces, replace(order, stopped_by=reason)


def _find_reason_to_stop(traces: TraceSamples, order: RankOrder, *, all_spent: bool) -> str:
    """Return why sampling ends, as :attr:`RankOrder.stopped_by`; empty if it goes on."""
    if traces.exact:
        return "exact"
    if not order.open_pairs:
        return "settled"
    if not order.within_reach:
        return "samples"
    return "max-probes" if all_spent else ""


class _Sampling:
    """The estimators of one ranking at work, round by round."""

    def __init__(self, inputs: RankingInputs, runner: ProbeRunner, parts: Sequence[SamplingPart]) -> None:
        self._inputs, self._runner, self._parts = inputs, runner, parts

    def tables(self) -> dict[str, Replicates]:
        """Return everything that is estimated, by a name that is the same in every run."""
        layers = {f"layers{i}": part.found.layers for i, part in enumerate(self._parts)}
        return layers | {f"weights{i}": part.found.weights for i, part in enumerate(self._parts)}

    def facts(self, done: int, goal: int) -> dict[str, Any]:
        """Return where the round stands, for a checkpoint."""
        counts = {"taken": [part.taken for part in self._parts], "until": [part.until for part in self._parts]}
        return {"done": done, "goal": goal, "copies": self._runner.copies, **counts}

    def restore(self, facts: Mapping[str, Any]) -> tuple[int, int]:
        """Go on where :meth:`facts` stood; return how many probes were done, and the goal."""
        self._runner.copies = facts["copies"]
        for part, taken, until in zip(self._parts, facts["taken"], facts["until"], strict=True):
            part.taken, part.until = taken, until
        return facts["done"], facts["goal"]

    def look_ahead(self, goal: int) -> None:
        """Decide how many probes each part takes until others have taken ``goal``."""
        for part in self._parts:
            part.look_ahead(goal)
        agreed = self._inputs.batches.team.broadcast([part.until for part in self._parts])
        for part, until in zip(self._parts, agreed, strict=True):
            part.until = until

    def steps(self) -> list[partial[None]]:
        """Return the steps of this round: each part's probes, a chunk a forward pass."""
        return [
            partial(self._add, part, chunk)
            for part in self._parts
            for chunk in split_into_chunks(range(part.taken, part.until))
        ]

    def _add(self, part: SamplingPart, chunk: range, batch: Batch) -> None:
        choice, runner = part.found.choice, self._runner
        copies = runner.copies if part.found.deterministic else None
        for one in runner.run(part.estimator, batch, chunk, choice.layers, choice.weights, copies=copies):
            part.found.layers.add(batch.samples, one.layers.numpy())
            part.found.weights.add(batch.samples, one.weights.numpy())
