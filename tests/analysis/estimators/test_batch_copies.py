"""Copies of samples, side by side in a batch."""

from __future__ import annotations

import torch

from hessrank.analysis.estimators.base import Estimates
from hessrank.analysis.estimators.batch_copies import BatchCopies, flatten, unflatten
from hessrank.analysis.estimators.probes import Rademacher
from hessrank.data.batch import Batch
from hessrank.network.layer_facts import SampleAxis

BATCH = Batch((torch.tensor([[1.0], [2.0]]),), {}, None, (5, 7))


def test_copies_of_a_sample_are_neighbors() -> None:
    rows = BatchCopies(BATCH, 3)
    assert len(rows) == 6
    assert rows.batch.args[0].flatten().tolist() == [1, 1, 1, 2, 2, 2]
    assert rows.batch.samples == (5, 5, 5, 7, 7, 7)
    assert rows.by_sample(torch.arange(6)).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert rows.for_all_copies(torch.tensor([1, 2])).tolist() == [1, 1, 1, 2, 2, 2]


def test_a_probe_depends_on_sample_and_index_alone() -> None:
    probes, like = Rademacher(0), torch.empty(())
    drawn = BatchCopies(BATCH, 2).draw(probes, 9, [0, 3], 1, like)
    own = [probes.draw(9, sample=sample, probe=probe, stream=1) for sample in (5, 7) for probe in (0, 3)]
    assert torch.equal(drawn, torch.stack(own))


def test_the_last_group_is_filled_up_and_not_counted() -> None:
    rows = BatchCopies(BATCH, 2)
    assert list(rows.groups(range(3))) == [([0, 1], 2), ([2, 2], 1)]
    found = Estimates(torch.arange(4.0)[None], torch.zeros(0, 4))
    assert [one.layers.tolist() for one in rows.split_by_probe(found, 1)] == [[[0.0, 2.0]]]


def test_the_mean_square_counts_every_probe_once() -> None:
    rows = BatchCopies(BATCH, 2)

    def vectors(group: list[int]) -> list[torch.Tensor]:
        return [torch.tensor(group * 2, dtype=torch.float64)[:, None]]

    assert rows.mean_square(3, vectors)[0].tolist() == [[5 / 3], [5 / 3]]


def test_rows_side_by_side_come_apart_again() -> None:
    tensors = [torch.randn(2, 3), torch.randn(4, 2, 5)]
    axes = [SampleAxis(), SampleAxis(dim=1)]
    rows = flatten(tensors, axes, 2)
    assert rows.shape == (2, 3 + 20)
    assert all(torch.equal(a, b) for a, b in zip(unflatten(rows, tensors, axes), tensors, strict=True))
