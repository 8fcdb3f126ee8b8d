"""Kernels with a second derivative."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from hessrank.network.double_backward import allow_double_backward


def second_derivative(value: Tensor, x: Tensor) -> Tensor:
    (slope,) = torch.autograd.grad(value.sum(), x, create_graph=True)
    return torch.autograd.grad(slope.sum(), x)[0]


def test_hardsigmoid_bends_where_it_is_squared() -> None:
    x = torch.tensor([0.0, 9.0], requires_grad=True)
    with allow_double_backward():
        y = F.hardsigmoid(x)
    assert y.tolist() == [0.5, 1.0]
    assert torch.allclose(second_derivative(y**2, x), torch.tensor([2 / 36, 0.0]))


def test_attention_can_be_differentiated_twice() -> None:
    x = torch.eye(2)[None, None].requires_grad_()
    with allow_double_backward():
        y = F.scaled_dot_product_attention(x, x, x)
    assert bool(second_derivative(y, x).isfinite().all())
