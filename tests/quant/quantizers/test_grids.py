"""From a range to scale and zero point."""

import pytest
import torch

from hessrank.affine_grid import affine_parameters
from hessrank.quant.quantizers.grids import across, range_to_grid, snap_scale, straight_through
from hessrank.quant.scheme import Scheme

RANGES = {
    "both signs": (-1.0, 3.0),
    "non-negative": (0.0, 1.0),
    "positive": (0.5, 2.0),
    "negative": (-4.0, -1.0),
    "tiny": (-1e-30, 3e-30),
    "huge": (-1e30, 2e30),
    "lopsided": (-1e-3, 100.0),
}


def one(low: float, high: float, scheme: Scheme) -> tuple[float, int]:
    scale, zero_point = range_to_grid(torch.tensor([low]), torch.tensor([high]), scheme)
    assert scale.dtype == torch.float32
    assert zero_point.dtype == torch.int32
    return scale.item(), int(zero_point)


@pytest.mark.parametrize("bits", [2, 3, 4, 8, 10, 16])
@pytest.mark.parametrize(("low", "high"), RANGES.values(), ids=RANGES)
def test_affine_grid_is_that_of_the_predicted_increase(low: float, high: float, bits: int) -> None:
    scale, zero_point = one(low, high, Scheme(bits))
    expected = affine_parameters(low, high, bits)
    assert scale == pytest.approx(expected[0], rel=1e-6)
    assert zero_point == expected[1]


@pytest.mark.parametrize("bits", [2, 3, 4, 8, 10, 16])
@pytest.mark.parametrize(("low", "high"), RANGES.values(), ids=RANGES)
def test_symmetric_grid_ends_at_the_larger_magnitude(low: float, high: float, bits: int) -> None:
    scheme = Scheme(bits, symmetric=True)
    scale, zero_point = one(low, high, scheme)
    assert zero_point == 0
    assert scale * scheme.quant_max == pytest.approx(max(-low, high, 0), rel=1e-6)


@pytest.mark.parametrize("scheme", [Scheme(4), Scheme(4, symmetric=True), Scheme(4, pot_scale=True)], ids=str)
def test_a_range_of_nothing_but_zero_gets_scale_one(scheme: Scheme) -> None:
    assert one(0.0, 0.0, scheme) == (1.0, 0)
    assert one(1e-45, 1e-45, scheme) == (1.0, 0)


def test_every_power_of_two_is_exact() -> None:
    exponents = torch.arange(-100, 100)
    scales = torch.tensor([2.0**e for e in exponents.tolist()])
    pot = Scheme(8, pot_scale=True)
    assert torch.equal(snap_scale(scales * 1.3, pot), scales)
    assert torch.equal(snap_scale(scales / 1.3, pot), scales)
    assert torch.equal(snap_scale(scales * 1.3, Scheme(8)), scales * 1.3)


def test_power_of_two_passes_the_gradient_straight_through() -> None:
    scale = torch.tensor([0.3, 5.0], requires_grad=True)
    (snap_scale(scale, Scheme(8, pot_scale=True)) * torch.tensor([2.0, 7.0])).sum().backward()
    assert scale.grad is not None
    assert scale.grad.tolist() == [2, 7]


def test_straight_through_keeps_the_value_to_the_last_bit() -> None:
    value, source = torch.rand(1000), (torch.rand(1000) * 1e6).requires_grad_()
    result = straight_through(value, source)
    assert torch.equal(result, value)
    result.sum().backward()
    assert source.grad is not None
    assert torch.equal(source.grad, torch.ones(1000))


@pytest.mark.parametrize(("axis", "shape"), [(0, (3, 1, 1)), (1, (1, 3, 1)), (-1, (1, 1, 3))])
def test_scales_broadcast_along_their_axis(axis: int, shape: tuple[int, ...]) -> None:
    assert tuple(across(torch.ones(3), axis, 3).shape) == shape


def test_one_scale_broadcasts_over_a_scalar_too() -> None:
    assert tuple(across(torch.ones(1), None, 0).shape) == ()
