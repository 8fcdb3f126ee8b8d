"""Averages :mod:`quadratic_form` over random probes, or over a whole basis."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial, reduce

import numpy as np
import torch
from torch import Tensor

from hessrank.analysis.estimators import Weight
from hessrank.analysis.estimators.probes import UnitVectors
from hessrank.analysis.ranking_inputs import RankingInputs
from hessrank.analysis.rounding.quadratic_form import Grids, rounding_increase
from hessrank.analysis.sampling.probe_runner import ProbeRunner, split_into_chunks
from hessrank.analysis.sampling.resumable_pass import Journal
from hessrank.analysis.statistics import Array, Replicates
from hessrank.data.batch import Batch, single_samples
from hessrank.network.weights import channel_axis, module_of


class RoundingDraws:
    """½ eᵀGe of some layers and weights at some bit-widths, by sample.

    Attributes:
        layers: names of the layers.
        weights: the weights.
        bits: the bit-widths.
        counts: backward passes for each sample.
        exact: the probes are all unit vectors, so that there is no noise.
    """

    def __init__(
        self,
        layers: Sequence[str],
        weights: Sequence[Weight],
        bits: Sequence[int],
        counts: Sequence[int],
        *,
        exact: bool,
    ) -> None:
        """Start without draws; if ``exact``, ``counts`` are numbers of outputs."""
        self.layers, self.weights, self.bits = tuple(layers), tuple(weights), tuple(bits)
        self.counts, self.exact = tuple(counts), exact
        rows = (len(self.layers) + len(self.weights)) * len(self.bits)
        self._found = Replicates(rows, len(self.counts), deterministic=exact)

    def run(self, inputs: RankingInputs, runner: ProbeRunner, journal: Journal) -> None:
        """Draw on all samples with the probes of ``runner``; save to ``journal``."""
        ranges = {name: (inputs.facts[name].low, inputs.facts[name].high) for name in self.layers}
        channels = [channel_axis(module_of(inputs.network, weight)) for weight in self.weights]
        estimate = partial(rounding_increase, grids=Grids(self.bits, ranges, channels), exact=self.exact)
        probes = UnitVectors() if self.exact else None

        def add(chunk: range, batch: Batch) -> None:
            drawn: list[tuple[tuple[int, ...], Tensor]] = []
            for one in single_samples(batch):
                if indices := range(chunk.start, min(chunk.stop, self.counts[one.samples[0]])):
                    found = runner.run(estimate, one, indices, self.layers, self.weights, probes=probes)
                    drawn += [(one.samples, draw) for draw in ([reduce(torch.add, found)] if self.exact else found)]
            for samples, draw in drawn:  # not before all are there: if memory runs out, the batch is done again
                self._found.add(samples, draw.reshape(-1, 1).numpy())

        most = range(max(self.counts))
        chunks = [most] if self.exact else split_into_chunks(most)
        stage = journal.open("increases", inputs.batches, {"draws": self._found})
        runner.copies = stage.facts.get("copies", runner.copies)
        stage.run(
            [partial(add, chunk) for chunk in chunks],
            journal.report_on("increases", sum(self.counts)),
            lambda: {"copies": runner.copies},
        )

    def per_sample(self) -> Array:
        """Return the mean over each sample's draws, in units of the loss.

        Its shape is (layers + weights, bits, samples).
        """
        return np.asarray(self._found.per_sample().reshape(-1, len(self.bits), len(self.counts)))

    def noise(self) -> Array:
        """Return the relative standard error that the draws cause, shape (rows, bits).

        A draw's standard deviation is √2 times its mean at most; of few draws that bound is better than their sample
        variance.
        """
        means = self._found.per_sample()
        variance = (2 * means**2 / np.array(self.counts)).sum(1) * (not self.exact)
        total = means.sum(1)
        return np.asarray(np.sqrt(variance) / np.where(total > 0, total, np.inf)).reshape(-1, len(self.bits))

    def replicates(self, width: int) -> Array:
        """Return independent replicates of the layers' increases at ``width`` bits.

        A replicate is a sample or, of a single sample, a block of draws.
        """
        values = self._found.values()
        return values.reshape(-1, len(self.bits), values.shape[1])[: len(self.layers), self.bits.index(width)]

    def noise_share(self, width: int) -> Array:
        """Return the share of the squared standard error that more draws would remove.

        It has one entry a layer, at ``width`` bits.
        """
        share = self._found.probe_share().reshape(-1, len(self.bits))
        return np.asarray(share[: len(self.layers), self.bits.index(width)])


def distribute_draws(draws: int, shares: Array) -> list[int]:
    """Return how many draws each sample gets.

    One each, and the rest in proportion to the sample's share of the increases.

    A draw deviates by its own size, so that this makes the mean over all samples least noisy (Neyman 1934).

    Args:
        draws: in all; a single sample has two at least, or it would have no error bar.
        shares: each sample's part of the increase that the traces predict, shape (samples,); they add up to 1.
    """
    samples = len(shares)
    left = max(draws - samples, 1 if samples == 1 else 0)
    bounds = np.floor(np.cumsum(np.r_[0.0, shares]) * left + 0.5)
    bounds[-1] = left
    return [1 + int(extra) for extra in np.diff(bounds)]
