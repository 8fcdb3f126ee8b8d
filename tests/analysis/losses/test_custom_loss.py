"""A function as a loss."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hessrank.analysis.losses.custom_loss import CustomLoss
from hessrank.errors import LossError


def test_it_is_given_one_sample_at_a_time() -> None:
    loss = CustomLoss(lambda output, target: (output - target).square().mean(), "mine")
    assert loss.per_sample(torch.tensor([[1.0, 3.0], [0.0, 2.0]]), torch.zeros(2, 2)).tolist() == [5.0, 2.0]
    assert loss.factor(None, None, []) is None


def test_its_signature_says_whether_it_takes_a_target() -> None:
    def with_default(output: Tensor, weight: float = 1.0) -> Tensor:
        return output.sum() * weight

    assert not CustomLoss(with_default, "mine").needs_target
    assert CustomLoss(lambda *tensors: tensors[0].sum(), "mine").needs_target
    assert CustomLoss(with_default, "mine").per_sample(torch.ones(2, 3), None).tolist() == [3.0, 3.0]


def test_what_is_no_number_is_refused() -> None:
    def fail(output: Tensor) -> Tensor:
        raise ValueError("no such luck")

    with pytest.raises(LossError, match=r"loss 'mine' returned shape \(1, 3\) for one sample"):
        CustomLoss(lambda output: output, "mine").per_sample(torch.ones(2, 3), None)
    with pytest.raises(LossError, match=r"loss 'mine'.*no such luck"):
        CustomLoss(fail, "mine").per_sample(torch.ones(2, 3), None)
