"""Rounding to b bits and the predicted increase."""

import numpy as np
import pytest
import torch
from torch import nn

from hessrank.affine_grid import affine_parameters
from hessrank.analysis.rank import rank
from hessrank.analysis.rounding.quantize import quantize, quantize_weight, quantize_weight_widths


@pytest.mark.parametrize("bits", [2, 4, 8, 10, 16])
@pytest.mark.parametrize(("low", "high"), [(-1.0, 3.0), (0.0, 1.0), (0.5, 2.0), (-4.0, -1.0)])
def test_the_grid_holds_zero_and_the_range(bits: int, low: float, high: float) -> None:
    scale, zero_point = affine_parameters(low, high, bits)
    steps = 2**bits - 1
    assert 0 <= zero_point <= steps
    assert quantize(torch.zeros(1), low, high, bits).item() == 0
    ends = torch.tensor([low, high])
    assert (quantize(ends, low, high, bits) - ends).abs().max() <= scale * (1 + 1e-3)


@pytest.mark.parametrize("bits", [4, 8])
def test_rounding_error_of_a_uniform_activation_is_a_twelfth_of_a_squared_step(bits: int) -> None:
    value = torch.rand(200_000, generator=torch.Generator().manual_seed(0))
    error = (quantize(value, 0, 1, bits) - value).square().mean().item()
    assert error == pytest.approx((1 / (2**bits - 1)) ** 2 / 12, rel=0.02)


@pytest.mark.parametrize("bits", [2, 4, 7, 8, 16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("low", "high"), [(-1.3, 2.7), (0.0, 0.9), (0.0, 0.0), (-1e-30, 1e-31)])
def test_rounding_is_to_the_bit_what_torch_does(bits: int, dtype: torch.dtype, low: float, high: float) -> None:
    uniform = torch.rand(10_000, dtype=dtype, generator=torch.Generator().manual_seed(0))
    value = low + (high - low) * (1.2 * uniform - 0.1)
    scale, zero_point = affine_parameters(low, high, bits)
    expected = torch.fake_quantize_per_tensor_affine(value, scale, zero_point, 0, 2**bits - 1)
    assert quantize(value, low, high, bits).equal(expected)


@pytest.mark.parametrize("bits", [2, 4, 7, 8, 16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("axis", [0, 1])
def test_rounding_of_weights_is_to_the_bit_what_torch_does(bits: int, dtype: torch.dtype, axis: int) -> None:
    weight = torch.randn(5, 7, 3, 3, dtype=dtype, generator=torch.Generator().manual_seed(0))
    weight.select(axis, 2).zero_()
    weight.select(axis, 3).abs_()
    low, high = weight.amin((1 - axis, 2, 3)).clamp(max=0), weight.amax((1 - axis, 2, 3)).clamp(min=0)
    steps = 2**bits - 1
    scale = ((high - low) / steps).float()
    scale[2] = 1
    zero_point = (-low / scale).round().to(torch.int32)
    expected = torch.fake_quantize_per_channel_affine(weight, scale, zero_point, axis, 0, steps)
    assert quantize_weight(weight, axis, bits).equal(expected)
    assert quantize_weight_widths(weight, axis, [3, bits])[1].equal(expected)


def test_a_constant_zero_tensor_is_not_changed() -> None:
    assert quantize(torch.zeros(4), 0, 0, 8).tolist() == [0] * 4
    assert quantize_weight(torch.zeros(3, 4), 0, 8).abs().max() == 0


@pytest.mark.parametrize("axis", [0, 1])
def test_weights_are_rounded_channel_by_channel(axis: int) -> None:
    weight = torch.randn(3, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    weight *= torch.logspace(-3, 3, weight.shape[axis]).reshape([-1 if d == axis else 1 for d in range(4)])
    for channel in range(weight.shape[axis]):
        one = weight.select(axis, channel)
        found = quantize_weight(weight, axis, 4).select(axis, channel)
        expected = quantize(one, float(one.min()), float(one.max()), 4)
        torch.testing.assert_close(found, expected)


def test_predicted_increase_is_half_the_trace_times_the_mean_squared_error() -> None:
    """One linear layer, loss self: B = 2/m I, so at the output itself the prediction is the measured increase."""
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 80)), torch.randn(3, 6)
    ranking = rank(model, x, loss="self-mse", max_probes=4, bits=[4, 8], increase_probes=0)
    output = model(x).detach()
    for bits in (4, 8):
        error = (quantize(output, float(output.min()), float(output.max()), bits) - output).square().mean().item()
        assert ranking["2"][f"act_increase_b{bits}"] == pytest.approx(error, rel=1e-4)


def test_weight_columns_stand_at_the_first_call_and_fall_by_four_a_bit() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3))
    frame = rank(model, torch.randn(2, 1, 8, 8), max_probes=8, bits=range(6, 13)).to_frame().set_index("layer")
    assert np.isnan(frame.loc["1", "weight_trace"])
    for layer in ("0", "2"):
        row = frame.loc[layer]
        steps = [row[f"weight_increase_b{b}"] / row[f"weight_increase_b{b + 1}"] for b in range(6, 12)]
        assert np.mean(steps) == pytest.approx(4, rel=0.2)
        assert row["weight_trace"] > 0
        assert row["weight_sem"] > 0
