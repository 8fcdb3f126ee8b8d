"""What every estimator takes and gives."""

from __future__ import annotations

import pytest
import torch

from hessrank.analysis.estimators.base import Estimates, differentiable_outputs, find_target, zeros
from hessrank.analysis.losses import make_loss
from hessrank.data.batch import Batch
from hessrank.errors import LossError

BATCH = Batch((torch.ones(2, 1),), {}, torch.zeros(2, 1), (0, 1))


def test_estimates_add_up_layer_by_layer_and_weight_by_weight() -> None:
    one = Estimates(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0]]))
    total = one * 3 + one - one
    assert (total.layers.tolist(), total.weights.tolist()) == ([[3.0, 6.0]], [[9.0, 12.0]])
    assert one.is_finite()
    assert not Estimates(one.layers, one.weights * float("nan")).is_finite()
    assert zeros(3, BATCH).shape == (3, 2)


def test_a_loss_without_labels_compares_with_the_output_itself() -> None:
    output = torch.ones(2, 1, requires_grad=True) * 2
    assert find_target(make_loss("mse"), BATCH, output) is BATCH.target
    own = find_target(make_loss("self"), BATCH, output)
    assert torch.equal(own, output)
    assert not own.requires_grad


def test_outputs_that_no_estimator_can_use_are_refused() -> None:
    loss, useful = make_loss("self"), torch.ones(2, 1, requires_grad=True) * 2
    assert differentiable_outputs(loss, BATCH, useful) == [useful]
    with pytest.raises(LossError, match="the network returns 3×1 for 2 samples: loss 'self' needs the samples along"):
        differentiable_outputs(loss, BATCH, torch.ones(3, 1, requires_grad=True))
    with pytest.raises(LossError, match="no floating-point tensor that depends on an activation"):
        differentiable_outputs(loss, BATCH, torch.ones(2, 1))
