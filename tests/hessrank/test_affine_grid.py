"""The affine grid of numbers and that of tensors are one."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from hessrank.affine_grid import TINY, affine_grid, affine_parameters
from hessrank.quant.quantizers.grids import range_to_grid
from hessrank.quant.scheme import Scheme

ENDS = st.floats(-(2.0**100), 2.0**100, width=32)


def parts(one: float, other: float) -> tuple[float, float]:
    return min(one, other), max(one, other)


@given(ENDS, ENDS, st.integers(2, 16))
def test_a_quantizer_has_the_grid_that_a_prediction_takes(one: float, other: float, bits: int) -> None:
    """The prediction computes with numbers in float64, the quantizer in float32: they may part on the edge only."""
    low, high = parts(one, other)
    expected, integer = affine_parameters(low, high, bits)
    scale, zero_point = range_to_grid(torch.tensor([low]), torch.tensor([high]), Scheme(bits))
    if expected < 2 * TINY or expected == 1.0:
        return
    assert abs(scale.item() - expected) <= 2**-22 * expected
    exact = -min(low, 0.0) / expected
    assert int(zero_point) == integer or abs(exact % 1 - 0.5) < 0.02


@given(ENDS, ENDS, st.integers(2, 16))
def test_weights_and_quantizers_have_one_grid_to_the_bit(one: float, other: float, bits: int) -> None:
    low, high = (torch.tensor([[end]]) for end in parts(min(one, 0.0), max(other, 0.0)))
    steps = torch.tensor([2.0**bits - 1, 7.0]).reshape(-1, 1, 1)
    of_weights = affine_grid(low, high, steps)
    of_quantizer = range_to_grid(low, high, Scheme(bits))
    assert torch.equal(of_weights[0][0], of_quantizer[0])
    assert torch.equal(of_weights[1][0].int(), of_quantizer[1])


@given(ENDS, st.integers(2, 16))
def test_the_zero_point_is_an_integer_of_the_grid(end: float, bits: int) -> None:
    scale, zero_point = affine_grid(torch.tensor(min(end, 0.0)), torch.tensor(max(end, 0.0)), 2**bits - 1)
    assert scale.dtype == zero_point.dtype == torch.float32
    assert scale > 0
    assert int(zero_point) in (0, 2**bits - 1)
