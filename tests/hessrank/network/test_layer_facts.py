"""Where a layer keeps its samples."""

from __future__ import annotations

import torch

from hessrank.network.layer_facts import LayerFacts, SampleAxis, sample_norms


def test_rows_are_samples_wherever_they_lie() -> None:
    value = torch.arange(24.0).reshape(3, 2, 4)  # two samples along dimension 1
    rows = SampleAxis(dim=1).rows(value, 2)
    assert rows[1].tolist() == value[:, 1].flatten().tolist()
    assert torch.equal(SampleAxis(dim=1).from_rows(rows, value), value)
    several = SampleAxis(repeat=2).rows(torch.arange(8.0).reshape(4, 2), 2)  # two windows a sample
    assert several.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_norms_are_those_of_the_rows() -> None:
    value = torch.tensor([[3.0, 0.0], [4.0, 5.0]])
    assert sample_norms(value, SampleAxis(), 2).tolist() == [3.0, torch.linalg.vector_norm(value[1]).item()]
    assert sample_norms(value, SampleAxis(dim=1), 2).tolist() == [5.0, 5.0]
    assert sample_norms(torch.tensor([3.0, 4.0]), SampleAxis(), 1).tolist() == [5.0]


def test_sizes_are_means_and_the_largest_shape_counts() -> None:
    facts = LayerFacts(((3, 4), (3, 6)), (12, 18), macs=1.0)
    assert facts.numel == 15
    assert facts.shape == (3, 6)
    facts.mask(-1e4)
    facts.mask(-1e9)
    assert facts.axis.masked == -1e4
