"""Runs an estimator on copies of samples; on fewer after memory ran out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

import torch

from hessrank.analysis.estimators import Work
from hessrank.analysis.estimators.probes import Probes, Rademacher
from hessrank.analysis.ranking_inputs import RankingInputs
from hessrank.data.batch import Batch
from hessrank.network.weights import Weight
from hessrank.out_of_memory import is_out_of_memory

PROBES_A_FORWARD = 16
"""Probes for one forward pass; their estimates are in memory until it is done."""

T = TypeVar("T")


class ProbeRunner:
    """Runs estimators with the probes of one seed.

    Attributes:
        seed: of the probes.
        copies: how often a sample may stand in one batch; halved, until the end, when memory runs out.
        precision: half precision for first-order passes; None for the network's own.
    """

    def __init__(self, inputs: RankingInputs, seed: int, copies: int, precision: torch.dtype | None = None) -> None:
        """Run on the network and the loss of ``inputs``."""
        self.seed, self.copies, self.precision = seed, copies, precision
        self._inputs = inputs

    def run(
        self,
        estimate: Callable[[Work], Iterable[T]],
        batch: Batch,
        indices: range,
        layers: Sequence[str],
        weights: Sequence[Weight],
        *,
        probes: Probes | None = None,
        copies: int | None = None,
    ) -> list[T]:
        """Return all that ``estimate`` yields.

        When memory runs out, it is tried again with half as many copies of the samples.

        Args:
            estimate: an estimator.
            batch: the samples.
            indices: which probes to use.
            layers: names of the layers that are wanted.
            weights: the weights that are wanted.
            probes: where they come from; random signs if None.
            copies: how often a sample may stand in the batch; None for one copy a probe, as far as they go.
        """
        inputs = self._inputs
        work = Work(
            inputs.network,
            inputs.loss,
            batch,
            probes or Rademacher(self.seed),
            indices,
            layers,
            weights,
            inputs.axes,
            copies or min(self.copies, len(indices)),
            self.precision,
        )
        while True:
            try:
                return list(estimate(work))
            except Exception as error:
                if not is_out_of_memory(error) or work.copies == 1:
                    raise
                self.copies = work.copies // 2
                work = replace(work, copies=self.copies)


def split_into_chunks(indices: range) -> list[range]:
    """Split ``indices`` into chunks of as many probes as one forward pass serves."""
    return [
        range(i, min(i + PROBES_A_FORWARD, indices.stop))
        for i in range(indices.start, indices.stop, PROBES_A_FORWARD)
    ]
