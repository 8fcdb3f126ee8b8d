"""Rounds of probes, each as large as all before, until the order is settled or nothing more can be had."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from hessrank.analysis.estimators import ESTIMATORS, Choice, Estimates, Estimator, Work
from hessrank.analysis.estimators.probes import Probes, Rademacher
from hessrank.analysis.losses.losses import Loss
from hessrank.analysis.sampling.checkpoint import Checkpoint
from hessrank.analysis.sampling.resumable_pass import Stage
from hessrank.analysis.statistics import Array, Gaps, Replicates, in_groups
from hessrank.data.batch import Batch
from hessrank.errors import OptionError
from hessrank.network.layer_facts import LayerFacts
from hessrank.network.network import Network
from hessrank.network.sample_batches import SampleBatches
from hessrank.network.weights import Weight
from hessrank.out_of_memory import is_out_of_memory
from hessrank.user_code import user_code

_AT_FIRST = 16  # probes of all samples together, before the first look
PROBES_A_FORWARD = 16  # probes for one forward pass; their estimates wait until the batch is done
_ENOUGH_TO_CORRECT = 16  # probes of one sample tell how they spread
_RATES = (0.25, 8.0)  # least and most that a rate is corrected to
_NOT_WORTH_IT = 0.02  # endless probes should settle more than this share of the pairs, or they are in vain

T = TypeVar("T")

Progress = Callable[[str, int, int], None]
"""Told what is going on, how much of it is done, and of how much: ``progress("probes", 8, 64)``."""


@dataclass
class Part:
    """One estimator at work on its layers and weights."""

    choice: Choice
    estimator: Estimator
    layers: Replicates
    weights: Replicates
    taken: int = 0  # probes of its own
    until: int = 0  # and at the end of this round

    @classmethod
    def of(cls, choice: Choice, samples: int) -> Part:
        """Start with nothing estimated."""
        make = ESTIMATORS.resolve_or_import(choice.estimator)
        with user_code(f"estimator {choice.estimator!r}: making it", OptionError):
            estimator = make(**choice.settings)
        fixed = estimator.deterministic
        return cls(
            choice,
            estimator,
            Replicates(len(choice.layers), samples, deterministic=fixed),
            Replicates(len(choice.weights), samples, deterministic=fixed),
        )

    def look_ahead(self, goal: int) -> None:
        """Decide how many probes to take in this round, in which others go on to ``goal``."""
        self.taken = self.until
        wanted = 1 if self.estimator.deterministic else self.choice.probes(goal, self.rate())
        self.until = max(self.taken, wanted)

    def rate(self) -> float:
        """Return how many probes to take where others take one: as planned, until what is seen tells better.

        A pilot's few probes misjudge some layers. Once as many have counted, their own spread says how many make the
        error of one of Hutchinson's.
        """
        choice = self.choice
        if not choice.hutchinson or self.layers.num_probes[choice.sample] < _ENOUGH_TO_CORRECT:
            return choice.rate
        aims = np.array(choice.hutchinson)
        needed = self.layers.variances(choice.sample)[aims > 0] / aims[aims > 0]
        return float(np.clip(needed.max(initial=_RATES[0]), *_RATES))

    def chunks(self) -> list[range]:
        """Return the probes of this round, in pieces of as many as one forward pass serves."""
        return in_chunks(range(self.taken, self.until))


@dataclass
class Rounds:
    """The sampling of one ranking.

    Attributes:
        parts: the estimators and what they have found.
        open: how many neighboring pairs are not settled.
        settled: for each layer in the order of execution, whether its place among its neighbors is certain.
        copies: how often a sample may stand in one batch; halved for good when memory runs out.
        precision: half precision for first-order passes; None for the network's own.
        checkpoint: keeps what is found, and may have something to go on from.
        stopped_by: why sampling ended: ``settled``, ``samples`` (only more samples would help), ``max-probes``
            or ``exact``; ``increase-probes`` where only more draws of the rounding damage would settle the order.
    """

    network: Network
    loss: Loss
    batches: SampleBatches
    facts: dict[str, LayerFacts]
    parts: list[Part]
    seed: int
    factors: Array  # (layers, samples): the key that is ranked is this times the trace
    copies: int = 1
    precision: torch.dtype | None = None
    checkpoint: Checkpoint | None = None
    open: int = 0
    settled: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, dtype=np.bool_))
    stopped_by: str = ""
    _hope: bool = True
    _keys: Array | None = None  # replicates of what the layers are ranked by, if not of the trace times a factor

    def run(self, tolerance: float, max_probes: int, progress: Progress) -> None:
        """Sample until the order is settled within ``tolerance`` or ``max_probes`` a sample are spent."""
        done, goal = 0, min(max_probes, max(2, _AT_FIRST // len(self.batches)))
        stage = Stage("probes", self.batches, self._tables(), self.checkpoint)
        resumed = stage.facts
        if resumed:
            done, goal, self.copies = (resumed[name] for name in ("done", "goal", "copies"))
            for part, taken, until in zip(self.parts, resumed["taken"], resumed["until"], strict=True):
                part.taken, part.until = taken, until
        while not self.stopped_by:
            if not resumed:
                self._look_ahead(goal)
            resumed = {}
            self._sample(stage, range(done, goal), max_probes, progress)
            done, goal = goal, min(2 * goal, max_probes)
            self._judge(tolerance)
            self.stopped_by = self.batches.team.broadcast(self._reason(done, max_probes))

    def trace_replicates(self) -> Array:
        """Return replicates of every layer's trace in the order of execution, shape (layers, replicates)."""
        return self._assembled([part.layers.values() for part in self.parts])

    def key_replicates(self) -> Array:
        """Return replicates of what the layers are ranked by: the trace times its factor, or what was given."""
        if self._keys is not None:
            return self._keys
        replicates = self.trace_replicates()
        fits = replicates.shape[1] == self.factors.shape[1]
        return replicates * (self.factors if fits else self.factors.mean(1, keepdims=True))

    def traces_per_sample(self) -> Array:
        """Return every layer's trace on every sample, shape (layers, samples)."""
        return self._assembled([part.layers.per_sample() for part in self.parts])

    def rank_by(self, keys: Array, probe_share: Array, tolerance: float, *, exact: bool) -> None:
        """Rank the layers by something other than their traces from now on.

        Args:
            keys: replicates of it, in the order of execution, shape (layers, replicates).
            probe_share: the part of each one's squared standard error that more draws would remove.
            tolerance: relative difference that does not matter.
            exact: the keys of a sample have no noise.
        """
        self._keys = keys
        if exact and len(self.batches) == 1:
            self.open, self.settled = 0, np.ones(len(keys), dtype=np.bool_)
        else:
            self._judge_order(tolerance, probe_share)
        if exact:
            self.stopped_by = "exact"
        elif not self.open:
            self.stopped_by = "settled"
        else:
            self.stopped_by = "increase-probes" if self._hope else "samples"

    def probe_share(self) -> Array:
        """Return the part of each trace's squared standard error that more probes would remove, 0 to 1."""
        return self._assembled([part.layers.probe_share()[:, None] for part in self.parts])[:, 0]

    @property
    def exact(self) -> bool:
        """Whether no trace has probe noise."""
        return all(part.estimator.deterministic for part in self.parts)

    def _assembled(self, tables: Sequence[Array]) -> Array:
        """Put the parts' rows into the order of execution; an exact value stands for as many replicates as needed."""
        width = min((table.shape[1] for table in tables if table.size and table.shape[1] > 1), default=1)
        row = {layer.name: layer.execution_index for layer in self.network.layers}
        result = np.zeros((len(row), width))
        for part, table in zip(self.parts, tables, strict=True):
            result[[row[name] for name in part.choice.layers]] = in_groups(table, width)
        return result

    def _tables(self) -> dict[str, Replicates]:
        """Return everything that is estimated, by a name that is the same in every run."""
        layers = {f"layers{i}": part.layers for i, part in enumerate(self.parts)}
        return layers | {f"weights{i}": part.weights for i, part in enumerate(self.parts)}

    def _look_ahead(self, goal: int) -> None:
        """Decide how many probes each part takes until others have taken ``goal``."""
        for part in self.parts:
            part.look_ahead(goal)
        for part, until in zip(self.parts, self.batches.team.broadcast([p.until for p in self.parts]), strict=True):
            part.until = until

    def _sample(self, stage: Stage, indices: range, max_probes: int, progress: Progress) -> None:
        total = max_probes if any(not p.estimator.deterministic for p in self.parts) else indices.stop

        def tell(share: float) -> None:
            progress("probes", indices.start + int(share * len(indices)), total)

        def facts() -> dict[str, Any]:
            counts = {"taken": [part.taken for part in self.parts], "until": [part.until for part in self.parts]}
            return {"done": indices.start, "goal": indices.stop, "copies": self.copies, **counts}

        stage.run([partial(self._add, part, chunk) for part in self.parts for chunk in part.chunks()], tell, facts)

    def _add(self, part: Part, chunk: range, batch: Batch) -> None:
        for one in self._estimates(part, batch, chunk):
            part.layers.add(batch.samples, one.layers.numpy())
            part.weights.add(batch.samples, one.weights.numpy())

    def _estimates(self, part: Part, batch: Batch, indices: range) -> list[Estimates]:
        choice, probes = part.choice, Rademacher(self.seed)
        copies = self.copies if part.estimator.deterministic else min(self.copies, len(indices))
        return self.in_copies(
            part.estimator, self.work(batch, probes, indices, choice.layers, choice.weights, copies)
        )

    def work(
        self,
        batch: Batch,
        probes: Probes,
        indices: range,
        layers: Sequence[str],
        weights: Sequence[Weight],
        copies: int,
    ) -> Work:
        """Return a piece of work on this network, with this loss."""
        axes = {name: fact.axis for name, fact in self.facts.items()}
        return Work(self.network, self.loss, batch, probes, indices, layers, weights, axes, copies, self.precision)

    def in_copies(self, estimate: Callable[[Work], Iterable[T]], work: Work) -> list[T]:
        """Return what ``estimate`` yields; when memory runs out with copies of the samples, with half as many."""
        while True:
            try:
                return list(estimate(work))
            except Exception as error:
                if not is_out_of_memory(error) or work.copies == 1:
                    raise
                self.copies = work.copies // 2
                work = replace(work, copies=self.copies)

    def _judge(self, tolerance: float) -> None:
        """See which neighbors are open, and whether more probes could settle any of them."""
        if self.exact and len(self.batches) == 1:
            self.settled = np.ones(len(self.network.layers), dtype=np.bool_)
            return
        self._judge_order(tolerance, self.probe_share())

    def _judge_order(self, tolerance: float, probe_share: Array) -> None:
        values = self.key_replicates()
        order = np.argsort(-values.mean(1), kind="stable")
        gaps = Gaps.between(values, order)
        pairs = gaps.open(tolerance)
        self.open = int(pairs.sum())
        unsettled = np.zeros(len(order), dtype=np.bool_)
        unsettled[order[:-1][pairs]] = unsettled[order[1:][pairs]] = True
        self.settled = ~unsettled
        share = probe_share[order]
        without_probe_noise = np.sqrt(1 - np.maximum(share[:-1], share[1:]))
        within_reach = int((pairs & ~gaps.open(tolerance, without_probe_noise)).sum())
        self._hope = within_reach > _NOT_WORTH_IT * len(pairs)

    def _reason(self, done: int, max_probes: int) -> str:
        if self.exact:
            return "exact"
        if not self.open:
            return "settled"
        if not self._hope:
            return "samples"
        return "max-probes" if done >= max_probes else ""


def in_chunks(indices: range) -> list[range]:
    """Return ``indices`` in pieces of as many probes as one forward pass serves."""
    return [
        range(i, min(i + PROBES_A_FORWARD, indices.stop))
        for i in range(indices.start, indices.stop, PROBES_A_FORWARD)
    ]
