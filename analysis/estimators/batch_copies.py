"""Batches with several copies of each sample, and vectors with one row a copy.

An activation may have its samples along any dimension; vectors have one row for each sample and copy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from hessrank.analysis.estimators.base import Estimates
from hessrank.analysis.estimators.probes import Probes, reshape_like
from hessrank.data.batch import Batch
from hessrank.network.layer_facts import SampleAxis


class BatchCopies:
    """A batch that holds every sample ``copies`` times.

    The copies of a sample follow each other: row ``sample · copies + copy``.

    Attributes:
        batch: the batch with the copies in it.
        copies: how many of each sample.
    """

    def __init__(self, batch: Batch, copies: int) -> None:
        """Repeat every sample of ``batch``."""
        self.copies, self._samples = copies, batch.samples
        if copies > 1:
            batch = batch.map(lambda tensor: tensor.repeat_interleave(copies, dim=0) if tensor.ndim else tensor)
            batch = replace(batch, samples=tuple(sample for sample in self._samples for _ in range(copies)))
        self.batch = batch

    def __len__(self) -> int:
        return len(self.batch)

    def groups(self, indices: Sequence[int]) -> Iterator[tuple[list[int], int]]:
        """Yield ``indices`` in groups of ``copies``, and how many of each group count.

        The last group is filled up with repetitions, which do not count.
        """
        for start in range(0, len(indices), self.copies):
            group = list(indices[start : start + self.copies])
            yield group + [group[-1]] * (self.copies - len(group)), len(group)

    def draw(self, probes: Probes, numel: int, group: Sequence[int], stream: int, like: Tensor) -> Tensor:
        """Return a probe vector for each row, shape (rows, ``numel``).

        Copy c of a sample has probe ``group[c]``.
        """
        rows = [
            probes.draw(numel, sample=sample, probe=probe, stream=stream)
            for sample in self._samples
            for probe in group
        ]
        return torch.stack(rows).to(like)

    def output_probes(self, probes: Probes, outputs: Sequence[Tensor], group: Sequence[int]) -> list[Tensor]:
        """Return probes shaped like the network's outputs, a different one for each row.

        Args:
            probes: where the vectors come from.
            outputs: output tensors, rows along dimension 0.
            group: the probe of each copy.
        """
        numel = sum(output[0].numel() for output in outputs)
        return reshape_like(outputs, self.draw(probes, numel, group, 0, torch.empty(())))

    def by_sample(self, rows: Tensor) -> Tensor:
        """Return rows × … as samples × copies × …."""
        return rows.reshape(len(self._samples), self.copies, *rows.shape[1:])

    def split_by_probe(self, found: Estimates, new: int) -> Iterator[Estimates]:
        """Yield estimates by row as the estimates of each of a group's first probes."""
        layers, weights = (self.by_sample(values.T) for values in (found.layers, found.weights))
        yield from (Estimates(layers[:, copy].T, weights[:, copy].T) for copy in range(new))

    def for_all_copies(self, per_sample: Tensor) -> Tensor:
        """Return samples × … as rows × …, the same for all copies."""
        return per_sample.repeat_interleave(self.copies, dim=0)

    def mean_square(self, count: int, vectors: Callable[[list[int]], Sequence[Tensor]]) -> list[Tensor]:
        """Return the mean square of ``vectors(group)`` over ``count`` probes, by sample.

        Args:
            count: how many probes.
            vectors: some tensors of rows × n for a group of probes.
        """
        sums: list[Tensor] = []
        for group, new in self.groups(range(count)):
            parts = [self.by_sample(v.square())[:, :new].sum(1) for v in vectors(group)]
            sums = [a + b for a, b in zip(sums, parts, strict=True)] if sums else parts
        return [total / count for total in sums]


def flatten(tensors: Sequence[Tensor], axes: Sequence[SampleAxis], count: int) -> Tensor:
    """Return tensors, concatenated, as ``count`` rows."""
    return torch.cat([axis.rows(t, count) for t, axis in zip(tensors, axes, strict=True)], dim=1)


def unflatten(rows: Tensor, like: Sequence[Tensor], axes: Sequence[SampleAxis]) -> list[Tensor]:
    """Return what :func:`flatten` took: one tensor of the shape of each of ``like``."""
    sizes = [t.numel() // len(rows) for t in like]
    parts = torch.split(rows, sizes, dim=1)
    return [axis.from_rows(part, t) for part, t, axis in zip(parts, like, axes, strict=True)]
