"""Random samples."""

from __future__ import annotations

import pytest
import torch

from hessrank.data.noise import NoiseSamples


def test_a_sample_depends_on_seed_and_index_alone() -> None:
    few, many = NoiseSamples((3, 4), 2, seed=1), NoiseSamples((3, 4), 9, seed=1)
    assert len(few) == 2
    assert few[1].shape == (3, 4)
    assert few[1].dtype == torch.float32
    assert torch.equal(few[1], many[1])
    assert torch.equal(few[-1], few[1])
    assert not torch.equal(few[0], few[1])
    assert not torch.equal(few[0], NoiseSamples((3, 4), 2, seed=2)[0])


def test_they_are_standard_normal() -> None:
    values = torch.stack(list(NoiseSamples((1000,), 10, seed=0)))
    assert abs(float(values.mean())) < 0.05
    assert abs(float(values.std()) - 1) < 0.05


def test_there_are_no_more_than_asked_for() -> None:
    with pytest.raises(IndexError, match="sample 2 of 2"):
        NoiseSamples((1,), 2, seed=0)[2]
