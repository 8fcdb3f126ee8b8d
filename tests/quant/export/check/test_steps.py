"""Differences in steps are those of the grid, not of float32."""

import math

import pytest
import torch

from hessrank.quant.export.check.steps import Difference


def test_neighbors_on_a_16_bit_grid_are_one_step_apart() -> None:
    step = torch.tensor(1.2345e-4)
    integers = torch.arange(60_000, 65_536)
    lower, upper = integers * step, (integers + 1) * step
    assert ((upper.double() - lower.double()) / step.double()).max() > 1.003  # as float32 writes them
    assert Difference.between(lower, upper, step).largest <= 1.0
    assert Difference.between(lower, lower, step) == Difference(0.0, 0.0)
    assert Difference.between(lower, lower + 5 * step, step).largest == pytest.approx(5, abs=0.02)


@pytest.mark.parametrize(("expected", "found"), [(1.0, math.inf), (math.inf, 1.0), (1.0, math.nan)])
def test_what_is_not_finite_is_never_near(expected: float, found: float) -> None:
    difference = Difference.between(torch.tensor([expected]), torch.tensor([found]), torch.tensor(1.0))
    assert not difference.largest <= 1
    assert difference.share == 1
