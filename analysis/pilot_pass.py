"""Runs the pilot of a ranking once, in the first process, on one sample."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hessrank.analysis.estimators.base import Work, find_target
from hessrank.analysis.estimators.curvature_propagation.pilot import PROBES, describe_plan, restore_plan, run_pilot
from hessrank.analysis.estimators.curvature_propagation.segments import PlannedSegment
from hessrank.analysis.estimators.probes import Rademacher
from hessrank.analysis.ranking_inputs import RankingInputs
from hessrank.analysis.sampling.checkpoint import Section
from hessrank.analysis.sampling.resumable_pass import Journal
from hessrank.data.batch import Batch
from hessrank.out_of_memory import is_out_of_memory


@dataclass(frozen=True)
class PilotPass:
    """Plans how to estimate the full Hessian's traces.

    Attributes:
        inputs: what is ranked.
        journal: keeps what is found.
        seed: of the probes.
        notes: what a reader should know, once it has run.
    """

    inputs: RankingInputs
    journal: Journal
    seed: int
    notes: list[str] = field(default_factory=list)

    def __call__(self, layers: tuple[str, ...]) -> list[PlannedSegment]:
        """Return the plan for ``layers``.

        It is empty where two copies of a sample do not fit into a batch.
        """
        copies = self.inputs.copies(1, PROBES)
        if copies == 1:
            return []
        checkpoint = self.journal.checkpoint
        section = checkpoint.section("pilot") if checkpoint else None
        found = section.facts if section else self._run(layers, copies)
        if checkpoint:
            checkpoint.keep("pilot", Section(facts=found))
        if found["ran_out"]:
            self.notes.append(
                "memory ran out in the pilot: where something curved follows, hutchinson does all layers"
            )
        return restore_plan(found["plan"], self.inputs.network, self.inputs.first_sample)

    def _run(self, layers: tuple[str, ...], copies: int) -> dict[str, Any]:
        """Run the pilot in the first process; all processes get its plan."""
        self.journal.progress("pilot", 0, 1)
        inputs, team = self.inputs, self.inputs.batches.team
        hardest, found = self._find_hardest_sample(), {"plan": [], "ran_out": False}
        with team.raise_together():
            if team.is_first:
                batch = inputs.batches.batch(hardest)
                probes, axes = Rademacher(self.seed), inputs.axes
                work = Work(inputs.network, inputs.loss, batch, probes, range(PROBES), layers, [], axes, copies)
                try:
                    found["plan"] = describe_plan(run_pilot(work, inputs.facts, inputs.outputs))
                except Exception as error:
                    if not is_out_of_memory(error):
                        raise
                    found["ran_out"] = True
        return team.broadcast(found)

    def _find_hardest_sample(self) -> int:
        """Return the sample with the largest loss; it contributes most to the traces."""
        inputs, team = self.inputs, self.inputs.batches.team
        losses = np.zeros(len(inputs.batches))

        def look(batch: Batch) -> None:
            output = inputs.network.run(batch, lambda *_: None).output
            losses[list(batch.samples)] = inputs.loss.per_sample(
                output, find_target(inputs.loss, batch, output)
            ).cpu()

        with team.raise_together():
            inputs.batches.for_each(look)
        return int(team.gather(losses, 0).argmax())
