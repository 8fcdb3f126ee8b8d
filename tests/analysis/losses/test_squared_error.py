"""The mean squared error."""

from __future__ import annotations

import torch

from hessrank.analysis.losses.squared_error import SquaredError
from hessrank.network.padding import Padded


def test_several_outputs_add_up() -> None:
    output = torch.tensor([[1.0, 3.0]]), torch.tensor([[2.0]])
    target = torch.zeros(1, 2), torch.zeros(1, 1)
    assert SquaredError().per_sample(output, target).tolist() == [5 + 4]
    roots = SquaredError().factor(output, target, [torch.ones(1, 2), torch.ones(1, 1)])
    assert [root.square().sum().item() for root in roots] == [2.0, torch.tensor(2.0).sqrt().square().item()]


def test_padding_is_left_out() -> None:
    output = torch.tensor([[[1.0], [3.0], [9.0]]])
    target = Padded(torch.zeros(1, 3, 1), torch.tensor([[True, True, False]]))
    assert SquaredError().per_sample(output, target).tolist() == [5.0]
    assert SquaredError().factor(output, target, [torch.ones(1, 3, 1)])[0].flatten().tolist() == [1.0, 1.0, 0.0]
