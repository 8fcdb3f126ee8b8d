"""Probe vectors."""

import numpy as np
import pytest
import torch

from hessrank.analysis.estimators.probes import Hadamard, Rademacher, UnitVectors, output_probes


def test_rademacher_depends_on_every_index_and_on_nothing_else() -> None:
    state = torch.get_rng_state()
    keys = [(0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)]
    drawn = [Rademacher(seed).draw(64, sample=s, probe=p, stream=t) for seed, s, p, t in keys]
    again = Rademacher(0).draw(64, sample=0, probe=0)
    assert torch.equal(drawn[0], again)
    assert all(not torch.equal(drawn[0], other) for other in drawn[1:])
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("numel", [1, 7, 8, 9, 1000])
def test_rademacher_gives_signs(numel: int) -> None:
    v = Rademacher(0).draw(numel, sample=0, probe=0)
    assert v.shape == (numel,)
    assert set(v.tolist()) <= {-1.0, 1.0}


def test_rademacher_has_the_identity_for_covariance() -> None:
    v = torch.stack([Rademacher(0).draw(16, sample=0, probe=p) for p in range(4000)])
    covariance = v.T @ v / 4000
    assert (covariance - torch.eye(16)).abs().max() < 5 / 4000**0.5
    assert v.mean().abs() < 5 / (16 * 4000) ** 0.5


@pytest.mark.parametrize("numel", [1, 2, 5, 8, 13])
def test_hadamard_rows_have_exactly_the_identity_for_covariance(numel: int) -> None:
    rows = Hadamard.rows(numel)
    assert rows >= numel
    v = torch.stack([Hadamard().draw(numel, sample=0, probe=p) for p in range(rows)]).double()
    assert torch.equal(v.T @ v, rows * torch.eye(numel, dtype=torch.float64))


def test_unit_vectors_sum_up_to_the_identity() -> None:
    v = torch.stack([UnitVectors().draw(4, sample=0, probe=p) for p in range(4)])
    assert torch.equal(v, torch.eye(4))


def test_output_probes_do_not_depend_on_the_batch() -> None:
    outputs = [torch.zeros(2, 3, 2), torch.zeros(2, 4, dtype=torch.float64)]
    both = output_probes(Rademacher(0), outputs, (5, 9), 3)
    alone = output_probes(Rademacher(0), [o[1:] for o in outputs], (9,), 3)
    assert [p.shape for p in both] == [o.shape for o in outputs]
    assert both[1].dtype == torch.float64
    for pair, one in zip(both, alone, strict=True):
        np.testing.assert_array_equal(pair[1:], one)
