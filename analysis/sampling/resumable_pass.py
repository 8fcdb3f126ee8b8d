"""Passes over all samples that can be interrupted and resumed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

from hessrank.analysis.options import Progress
from hessrank.analysis.sampling.checkpoint import Checkpoint, Section
from hessrank.data.batch import Batch
from hessrank.distributed import Team
from hessrank.network.sample_batches import SampleBatches

Step = Callable[[Batch], None]
"""Computes something on a batch, and adds it to the tables of its pass."""


class Table(Protocol):
    """Results by sample."""

    def share(self, team: Team) -> None:
        """Take each process's samples from that process."""
        ...

    def state(self) -> dict[str, NDArray[Any]]:
        """Return all that it holds."""
        ...

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Hold what :meth:`state` returned."""
        ...


class ResumablePass:
    """Steps over all samples, and the tables that they fill.

    One process alone keeps its state after every batch; several, each with samples of its own, after every step.
    """

    def __init__(
        self, name: str, batches: SampleBatches, tables: Mapping[str, Table], checkpoint: Checkpoint | None = None
    ) -> None:
        """Begin a stage, or continue where it was interrupted.

        Attributes:
            facts: what was kept beside the tables; empty if it had not begun.
        """
        self._name, self._batches, self._tables, self._checkpoint = name, batches, tables, checkpoint
        self.facts: Mapping[str, Any] = {}
        self._step = self._sample = 0  # where to go on
        section = checkpoint.section(name) if checkpoint else None
        if checkpoint and section:
            self._go_on(section, checkpoint)

    def run(
        self,
        steps: Sequence[Step],
        tell: Callable[[float], None],
        facts: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        """Run every step on every sample that has not had it.

        Args:
            steps: the same ones, in the same order, when an interrupted stage is resumed.
            tell: called with the share that is done.
            facts: what else should be kept, asked for whenever that happens.
        """
        batches, own = self._batches, self._batches.own
        for number in range(self._step, len(steps)):

            def work(batch: Batch, number: int = number) -> None:
                steps[number](batch)
                done = batch.samples[-1] + 1
                tell((number + (done - own.start) / len(own)) / len(steps))
                if batches.team.size == 1:
                    self._keep(number, done, facts())

            with batches.team.raise_together():
                batches.for_each(work, start=self._sample)
            self._sample = 0
            for table in self._tables.values():
                table.share(batches.team)
            self._keep(number + 1, 0, facts())
        self._step = 0

    def _keep(self, step: int, sample: int, facts: Mapping[str, Any]) -> None:
        if self._checkpoint is None:
            return
        place = {
            "step": step,
            "sample": sample,
            "batch_size": self._batches.batch_size,
            "halved": self._batches.halved,
        }
        arrays = {f"{name}.{key}": a for name, table in self._tables.items() for key, a in table.state().items()}
        self._checkpoint.keep(self._name, Section(arrays, {**facts, **place}))

    def _go_on(self, section: Section, checkpoint: Checkpoint) -> None:
        self._check(section, checkpoint)
        self.facts = section.facts
        self._step, self._sample = section.facts["step"], section.facts["sample"]
        self._batches.batch_size, self._batches.halved = section.facts["batch_size"], section.facts["halved"]
        for name, table in self._tables.items():
            own = {k.removeprefix(f"{name}."): a for k, a in section.arrays.items() if k.startswith(f"{name}.")}
            table.restore(own)

    def _check(self, section: Section, checkpoint: Checkpoint) -> None:
        """Refuse a section whose arrays or place do not fit this stage."""
        own = {f"{name}.{key}": a for name, table in self._tables.items() for key, a in table.state().items()}
        shapes, found = ({key: (a.shape, a.dtype) for key, a in held.items()} for held in (own, section.arrays))
        place = [section.facts.get(name) for name in ("step", "sample", "batch_size")]
        counts = all(type(value) is int and value >= 0 for value in place)
        if shapes != found or not counts or not place[2] or type(section.facts.get("halved")) is not bool:
            raise checkpoint.no_ranking()


@dataclass(frozen=True)
class Journal:
    """Where a ranking's passes save their results and report progress.

    Attributes:
        progress: called with how far they are.
        checkpoint: keeps what they find, and may have something to go on from; None for neither.
    """

    progress: Progress
    checkpoint: Checkpoint | None = None

    def open(self, name: str, batches: SampleBatches, tables: Mapping[str, Table]) -> ResumablePass:
        """Begin a pass over the samples of ``batches``, or go on with one of this name."""
        return ResumablePass(name, batches, tables, self.checkpoint)

    def report_on(self, stage: str, total: int, part: range | None = None) -> Callable[[float], None]:
        """Return a function that reports a stage's progress, given the share that is done.

        Args:
            stage: its name.
            total: how much there is to do.
            part: the part of ``range(total)`` that the share is of; None for all.
        """
        part = range(total) if part is None else part
        return lambda share: self.progress(stage, part.start + int(share * len(part)), total)
