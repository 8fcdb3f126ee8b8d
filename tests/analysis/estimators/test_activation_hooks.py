"""A backward pass past hooks."""

from __future__ import annotations

import pytest
import torch

from hessrank.analysis.estimators.activation_hooks import send_back, stack_results
from hessrank.errors import ModelError


def test_what_hooks_have_left_is_gathered_by_place() -> None:
    assert stack_results({2: torch.tensor([1.0, 2.0]), 0: torch.tensor([3.0, 4.0])}, (3, 2)).tolist() == [
        [3.0, 4.0],
        [0.0, 0.0],
        [1.0, 2.0],
    ]
    assert stack_results({}, (1, 2)).tolist() == [[0.0, 0.0]]


def test_gradients_go_by_and_none_is_kept() -> None:
    x, seen = torch.ones(2, requires_grad=True), []
    y = 3 * x
    y.register_hook(lambda slope: seen.append(slope.tolist()))  # type: ignore[no-untyped-call]
    outputs = [2 * y, torch.zeros(2)]
    for keep in (True, False):
        send_back(outputs, (x,), [torch.ones(2), torch.ones(2)], keep=keep)
    assert seen == [[2.0, 2.0]] * 2
    assert x.grad is None


def test_a_network_that_writes_over_its_activations_is_told_so() -> None:
    x = torch.ones(2, requires_grad=True)
    y = x.exp()
    z = y * 1
    y.add_(1)
    with pytest.raises(ModelError, match="writes over an activation that its own gradient needs"):
        send_back([z + y], (x,), [torch.ones(2)], keep=False)
