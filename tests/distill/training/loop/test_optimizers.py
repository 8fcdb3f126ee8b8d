"""Weights at one rate, what quantizers learn at another."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import hessrank
from hessrank.distill.run_file import Settings
from hessrank.distill.training.loop.optimizers import make_optimizer
from hessrank.errors import ModelError
from hessrank.quant.prepare import QuantizedModel


@pytest.fixture
def student() -> QuantizedModel:
    policy = hessrank.Policy.of({"extra_qconfig_dict": {"w_fakequantize": "lsq", "a_fakequantize": "fixed"}})
    return hessrank.prepare(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1)), policy, torch.eye(2)).train()


def test_quantizers_have_their_own_rate_and_no_decay(student: QuantizedModel) -> None:
    settings = Settings(learning_rate=1e-3, quantizer_learning_rate=1e-2, weight_decay=0.5, optimizer="adamw")
    optimizer = make_optimizer(student, nn.Linear(1, 1), settings, 10)
    weights, learned = optimizer.param_groups
    assert isinstance(optimizer, torch.optim.AdamW)
    assert (weights["lr"], weights["weight_decay"], len(weights["params"])) == (1e-3, 0.5, 4 + 2)
    assert (learned["lr"], learned["weight_decay"], len(learned["params"])) == (1e-2, 0.0, 2)


def test_the_cosine_ends_at_zero(student: QuantizedModel) -> None:
    made = make_optimizer(student, None, Settings(optimizer="sgd", schedule="cosine"), 4)
    for _ in range(4):
        made["optimizer"].step()
        made["lr_scheduler"]["scheduler"].step()
    assert made["optimizer"].param_groups[0]["lr"] == pytest.approx(0, abs=1e-12)


def test_a_frozen_layers_quantizer_is_frozen_and_a_frozen_network_refused(student: QuantizedModel) -> None:
    parameters = dict(student.named_parameters())
    first = next(name for name, value in parameters.items() if value.shape == (2, 2))
    parameters[first].requires_grad_(False)
    assert len(make_optimizer(student, None, Settings(), 1).param_groups[1]["params"]) == 1
    student.requires_grad_(False)
    with pytest.raises(ModelError, match="nothing to train"):
        make_optimizer(student, None, Settings(), 1)
