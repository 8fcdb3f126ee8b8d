"""What a policy is said to cost, and what it is said to leave in float."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hessrank import Policy, make_policy, prepare, rank, summarize
from hessrank.quant.bit_choice.allocation import BudgetError


class OwnConvolution(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (1, 1, 1, 1)), self.weight, self.bias)


class Mixed(nn.Module):
    """Two weights of nine tenths in float, one that is quantized, an input made of whole numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.t = OwnConvolution(3, 5, 3), OwnConvolution(5, 5, 3), nn.Linear(8, 5)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        phase = t[:, None].float() * torch.arange(4)
        time: Tensor = self.t(torch.cat([phase.sin(), phase.cos()], -1))
        y: Tensor = self.two(F.relu(self.one(x)))
        return y + time[:, :, None, None]


def mixed() -> tuple[nn.Module, Any]:
    torch.manual_seed(0)
    return Mixed().eval(), (torch.randn(4, 3, 4, 4), torch.randint(0, 100, (4,)))


def test_a_summary_tells_what_stays_in_float_with_its_share_and_reason() -> None:
    model, data = mixed()
    ranking = rank(model, data, bits=(4, 8), max_probes=1)
    found = summarize(make_policy(ranking, "uniform", base_bits=4), ranking)
    in_float, quantized = 9 * (3 * 5 + 5 * 5), 8 * 5
    assert found.costs.quantized_weights == quantized / (quantized + in_float)
    assert found.costs.mean_weight_bits == pytest.approx((4 * quantized + 32 * in_float) / (quantized + in_float))
    macs = {"one": 16 * 9 * 15, "two": 16 * 9 * 25, "t": 8 * 5}
    bops = 32 * 4 * (macs["one"] + macs["two"]) + 4 * 32 * macs["t"]
    assert found.costs.bops == bops
    assert found.costs.float_bops == 1  # t multiplies a quantized weight with an input in float
    printed = str(found)
    assert "mean bits  weights 29.2 (4 for the 10 % that are quantized), activations 4" in printed
    assert f"in float   3 tensors: {100 * found.costs.float_size:.2g} % of the size, 1e+02 % of the BOPs" in printed
    assert "weight of conv2d, conv2d_1: OwnConvolution hands it to the function conv2d" in printed
    assert "input cat of t: made of whole numbers only" in printed
    prepared = prepare(model, Policy(), data)
    assert {what: prepared.unquantized[what] for what in found.unquantized} == dict(found.unquantized)


def test_budgets_count_what_stays_in_float() -> None:
    model, data = mixed()
    ranking = rank(model, data, bits=(4, 8), max_probes=1)
    least = summarize(make_policy(ranking, "uniform", base_bits=4), ranking).costs
    with pytest.raises(BudgetError, match=r"mean weight bits 6 is impossible.*29\.2.*; 90 % of the weights stay in"):
        make_policy(ranking, "budget", budget_mean_bits=6, bits=(4, 8))
    for option, field in (("budget_size_mib", "size_mib"), ("budget_bops", "bops")):
        policy = make_policy(ranking, "budget", bits=(4, 8), **{option: getattr(least, field)})
        assert getattr(summarize(policy, ranking).costs, field) <= getattr(least, field) * (1 + 1e-9)
        with pytest.raises(BudgetError, match="is impossible"):
            make_policy(ranking, "budget", bits=(4, 8), **{option: 0.99 * getattr(least, field)})


def test_what_a_layer_reads_in_float_is_printed_with_the_prepared_network() -> None:
    model, data = mixed()
    printed = str(prepare(model, Policy(), data))
    assert "3 tensors stay in float" in printed
    assert "input cat of t: made of whole numbers only, so it was not ranked and no range is known" in printed
