"""What a training is of."""

from __future__ import annotations

import torch
from torch import nn

from hessrank.distill.training.outputs.identity import changed, identity_in_memory


def of(model: nn.Module, teacher: nn.Module | None = None, x: float = 0.0, loss: str = "mse") -> dict[str, object]:
    return identity_in_memory(model, teacher, {"training": (torch.tensor([x]),)}, loss)


def test_weights_teacher_samples_and_loss_count() -> None:
    model, other = nn.Linear(1, 1), nn.Linear(1, 1)
    assert of(model) == of(model)
    assert changed(of(model), of(model)) == []
    assert changed(of(other), of(model)) == ["model"]
    assert changed(of(model, other), of(model)) == ["teacher"]
    assert changed(of(model, x=1.0), of(model)) == ["training"]
    assert changed(of(model, loss="l1"), of(model)) == ["loss"]
    assert changed({}, {"model": "a"}) == ["model"]
