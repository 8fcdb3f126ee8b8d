"""DoReFa: weights through tanh, activations clipped."""

import math

import pytest
import torch
from torch import Tensor

from hessrank.quant.quantizers import DoReFa, Quantizer, make_quantizer
from hessrank.quant.scheme import Scheme


def values(seed: int = 0) -> Tensor:
    return torch.randn(6, 50, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ready(scheme: Scheme, low: float, high: float, *, weight: bool) -> Quantizer:
    quantizer = make_quantizer("dorefa", scheme, weight=weight)
    assert isinstance(quantizer, DoReFa)
    quantizer.set_range(torch.tensor(low), torch.tensor(high))
    return quantizer


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_weights_follow_the_paper_on_a_grid_with_zero(bits: int) -> None:
    """Equation 9 scaled to the calibrated magnitude instead of 1; 2^k − 2 steps instead of 2^k − 1."""
    w, steps = values(), 2**bits - 2
    reach = w.abs().max().item()
    quantizer = ready(Scheme(bits, symmetric=True), w.min().item(), w.max().item(), weight=True)
    unit = w.tanh() / (2 * w.tanh().abs().max()) + 0.5
    expected = reach * (2 * (steps * unit).round() / steps - 1)
    torch.testing.assert_close(quantizer.fake_quantize(w), expected, rtol=1e-5, atol=1e-6)


def test_the_gradient_of_a_weight_is_the_chain_rule_through_tanh_and_the_maximum() -> None:
    w, slope = values().requires_grad_(), values(1)
    quantizer = ready(Scheme(4, symmetric=True), -3.0, 2.5, weight=True)
    quantizer.fake_quantize(w).backward(slope)
    with torch.no_grad():
        t = w.tanh()
        top = t.abs().flatten().argmax()
        m = t.flatten()[top].abs()
        expected = 3 * slope / m * (1 - t.square())
        through_maximum = -3 * (slope * t).sum() / m.square() * t.flatten()[top].sign()
        expected.flatten()[top] += through_maximum * (1 - t.flatten()[top].square())
    assert w.grad is not None
    torch.testing.assert_close(w.grad, expected, rtol=1e-6, atol=1e-9)


def test_the_transform_of_a_weight_is_differentiated_correctly() -> None:
    quantizer = ready(Scheme(4, symmetric=True), -3.0, 2.5, weight=True)
    assert torch.autograd.gradcheck(quantizer.to_grid, (values().requires_grad_(),))


def test_each_channel_of_a_weight_has_its_own_maximum() -> None:
    w = values() * torch.logspace(-3, 1, 6, dtype=torch.float64)[:, None]
    quantizer = make_quantizer("dorefa", Scheme(4, per_channel=True, symmetric=True), axis=0, channels=6)
    quantizer.set_range(w.amin(1), w.amax(1))
    torch.testing.assert_close(quantizer.to_grid(w).abs().amax(1), w.abs().amax(1), rtol=1e-5, atol=0)


def test_an_activation_is_clipped_to_its_calibrated_range() -> None:
    x = values().requires_grad_()
    quantizer = ready(Scheme(4), 0.0, 1.0, weight=False)
    y = quantizer.fake_quantize(x)
    torch.testing.assert_close(y.detach(), (x.detach().clamp(0, 1) * 15).round() / 15, rtol=1e-6, atol=1e-6)
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, ((x > -0.5 / 15) & (x < 15.5 / 15)).double())
    assert quantizer.to_grid(x) is x


def test_what_is_quantized_per_channel_is_taken_for_a_weight_unless_said() -> None:
    per_channel = Scheme(4, per_channel=True)
    assert make_quantizer("dorefa", per_channel, axis=0, channels=2).weight
    assert not make_quantizer("dorefa", per_channel, axis=0, channels=2, weight=False).weight
    assert not make_quantizer("dorefa", Scheme(4)).weight


def test_small_weights_keep_their_shape() -> None:
    """Where tanh is linear, nothing is squeezed."""
    w = 1e-3 * values()
    quantizer = ready(Scheme(8, symmetric=True), w.min().item(), w.max().item(), weight=True)
    assert (quantizer.to_grid(w) - w).abs().max() < 1e-5 * math.pi
