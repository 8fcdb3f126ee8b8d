"""A network judged in a plain loop."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchmetrics import MeanSquaredError

from hessrank.distill.tasks.given import GivenTask
from hessrank.distill.training.evaluate import finite, judge, task_loss, update
from hessrank.errors import LossError

DATA = torch.tensor([[0.0], [1.0], [3.0]]), torch.zeros(3, 1)


def test_metrics_are_over_all_batches_alike() -> None:
    task = GivenTask(DATA, None, loss="mse", metrics={"error": MeanSquaredError()}, validation_batch_size=2)
    batches = [[part[:2] for part in DATA], [part[2:] for part in DATA]]
    found = judge(nn.Identity(), task, batches, nn.Identity(), torch.device("cpu"))
    assert found == pytest.approx({"error": 10 / 3, "loss": 10 / 3})


def test_a_loss_or_metric_that_fails_is_named() -> None:
    task = GivenTask(DATA, None, loss=lambda output, target: output - target)
    assert task_loss(GivenTask(DATA, None, loss="mse"), *DATA).item() == pytest.approx(10 / 3)
    with pytest.raises(LossError, match="loss"):
        task_loss(task, *DATA)
    with pytest.raises(LossError, match="the metric 'error'"):
        update({"error": MeanSquaredError()}, torch.zeros(2), torch.zeros(3))


def test_finite_looks_into_nests() -> None:
    assert finite({"x": [torch.zeros(1), torch.tensor([1])], "n": None})
    assert not finite({"x": (torch.tensor([float("inf")]),)})
