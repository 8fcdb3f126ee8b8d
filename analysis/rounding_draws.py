"""The draws that :mod:`rounding_damage` is averaged over: so many random probes on each sample, or a whole basis."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial, reduce

import numpy as np
import torch
from torch import Tensor

from hessrank.analysis.batches import Batch
from hessrank.analysis.estimators import Weight
from hessrank.analysis.probes import Probes, Rademacher, UnitVectors
from hessrank.analysis.rounding_damage import Grids, rounding_damage
from hessrank.analysis.rounds import Progress, Rounds, in_chunks
from hessrank.analysis.stage import Stage
from hessrank.analysis.statistics import Array, Replicates
from hessrank.analysis.weights import channel_axis


class RoundingDraws:
    """½ eᵀGe of some layers and weights at some bit-widths, by sample.

    Attributes:
        layers: names of the layers.
        weights: the weights.
        bits: the bit-widths.
        per_sample: backward passes for each sample.
        exact: the probes are all unit vectors, so that there is no noise.
    """

    def __init__(
        self,
        layers: Sequence[str],
        weights: Sequence[Weight],
        bits: Sequence[int],
        per_sample: int,
        samples: int,
        *,
        exact: bool,
    ) -> None:
        """Start with nothing drawn; ``per_sample`` is the number of outputs if it shall be ``exact``."""
        self.layers, self.weights, self.bits = tuple(layers), tuple(weights), tuple(bits)
        self.per_sample, self.exact, self._samples = per_sample, exact, samples
        rows = (len(self.layers) + len(self.weights)) * len(self.bits)
        self._found = Replicates(rows, samples, deterministic=exact)

    def run(self, rounds: Rounds, progress: Progress) -> None:
        """Draw on all samples of ``rounds``, whose probes these are too."""
        grids, indices = self._grids(rounds), range(self.per_sample)
        total = self.per_sample * self._samples

        def add(chunk: range, batch: Batch) -> None:
            found = self._estimates(rounds, batch, chunk, grids)
            for one in [reduce(torch.add, found)] if self.exact else found:
                self._found.add(batch.samples, one.reshape(-1, len(batch)).numpy())

        chunks = [indices] if self.exact else in_chunks(indices)
        stage = Stage("increases", rounds.feed, {"draws": self._found}, rounds.checkpoint)
        rounds.copies = stage.facts.get("copies", rounds.copies)
        stage.run(
            [partial(add, chunk) for chunk in chunks],
            lambda share: progress("increases", int(share * total), total),
            lambda: {"copies": rounds.copies},
        )

    def means(self) -> Array:
        """Return the mean over all draws, in units of the loss, shape (layers + weights, bits)."""
        return np.asarray(self._found.per_sample().mean(1).reshape(-1, len(self.bits)))

    def replicates(self, width: int) -> Array:
        """Return independent replicates for the layers at ``width`` bits: samples, or blocks of draws of one."""
        values = self._found.values()
        return values.reshape(-1, len(self.bits), values.shape[1])[: len(self.layers), self.bits.index(width)]

    def noise_share(self, width: int) -> Array:
        """Return the part of each layer's squared standard error at ``width`` bits that more draws would remove."""
        share = self._found.probe_share().reshape(-1, len(self.bits))
        return np.asarray(share[: len(self.layers), self.bits.index(width)])

    def _grids(self, rounds: Rounds) -> Grids:
        paths = {layer.name: str(layer.module) for layer in rounds.network.layers}
        modules = [rounds.network.model.get_submodule(paths[weight.calls[0]]) for weight in self.weights]
        ranges = {name: (rounds.facts[name].low, rounds.facts[name].high) for name in self.layers}
        return Grids(self.bits, ranges, [channel_axis(module) for module in modules])

    def _estimates(self, rounds: Rounds, batch: Batch, indices: range, grids: Grids) -> list[Tensor]:
        probes: Probes = UnitVectors() if self.exact else Rademacher(rounds.seed)
        copies = min(rounds.copies, len(indices))
        work = rounds.work(batch, probes, indices, self.layers, self.weights, copies)
        return rounds.in_copies(partial(rounding_damage, grids=grids), work)
