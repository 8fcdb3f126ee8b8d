"""Output and target, tensor by tensor."""

from __future__ import annotations

import pytest
import torch

from hessrank.analysis.losses.paired_tensors import pair_tensors, split_padded, sum_by_sample
from hessrank.errors import LossError
from hessrank.network.padding import Padded

ONE, TWO = torch.zeros(2, 3), torch.ones(2, 3)


def test_tensors_are_paired_in_order_and_labels_beside_them_are_left_out() -> None:
    pairs, real = pair_tensors("mse", (ONE, TWO), [TWO, torch.tensor([1, 2]), ONE])
    assert [(z is a, t is b) for (z, t), (a, b) in zip(pairs, ((ONE, TWO), (TWO, ONE)), strict=True)] == [
        (True, True)
    ] * 2
    assert real is None


def test_padding_comes_beside_the_values() -> None:
    padded = Padded(TWO, torch.ones(2, 3, dtype=torch.bool))
    assert split_padded(padded) == (padded.values, padded.real)
    assert pair_tensors("mse", ONE, padded)[1] is padded.real
    assert split_padded(TWO) == (TWO, None)


def test_other_shapes_are_refused() -> None:
    with pytest.raises(LossError, match="loss 'mse': the output is 2×3 and the target 3×2; they should have equal"):
        pair_tensors("mse", ONE, TWO.T)


def test_the_sum_is_over_all_but_the_samples() -> None:
    assert sum_by_sample(torch.ones(2, 3, 4)).tolist() == [12, 12]
    assert sum_by_sample(torch.ones(2)).tolist() == [1, 1]
