"""PACT and DSQ: gradients against the papers' formulas, and against finite differences."""

import math

import pytest
import torch
from torch import Tensor

from hessrank.quant.quantizers import DSQ, PACT, make_quantizer
from hessrank.quant.quantizers.clips import ClippedQuantizer
from hessrank.quant.quantizers.dsq import soft_staircase
from hessrank.quant.scheme import Scheme


def values(seed: int = 0) -> Tensor:
    return torch.randn(6, 50, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ready(method: str, scheme: Scheme, low: float, high: float) -> ClippedQuantizer:
    quantizer = make_quantizer(method, scheme)
    assert isinstance(quantizer, ClippedQuantizer)
    quantizer.set_range(torch.tensor(low), torch.tensor(high))
    return quantizer


def grads(quantizer: ClippedQuantizer) -> dict[str, float]:
    return {name: float(p.grad) for name, p in quantizer.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_pact_behind_a_relu_has_the_gradient_of_the_paper(bits: int) -> None:
    quantizer, x, slope = ready("pact", Scheme(bits), 0.0, 1.2), values().abs().requires_grad_(), values(1)
    y = quantizer.fake_quantize(x)
    y.backward(slope)
    alpha, steps = quantizer.grid().scale.item() * (2**bits - 1), 2**bits - 1
    assert alpha == pytest.approx(1.2)
    inside = (x < alpha).detach()
    expected = (x.detach().clamp(0, alpha) * (steps / alpha)).round() * (alpha / steps)
    torch.testing.assert_close(y.detach(), expected)
    assert x.grad is not None
    assert torch.equal(x.grad, slope * inside)
    found = grads(quantizer)
    assert found["log_high"] == pytest.approx(alpha * (slope * ~inside).sum().item(), rel=1e-5)
    assert found["log_low"] == 0


def test_pact_of_both_signs_has_a_clip_on_each_side() -> None:
    quantizer, x, slope = ready("pact", Scheme(4), -0.4, 1.1), values(), values(1)
    quantizer.fake_quantize(x).backward(slope)
    low, high = -4 * quantizer.scale.item(), 11 * quantizer.scale.item()
    assert int(quantizer.zero_point) == 4
    found = grads(quantizer)
    assert found["log_low"] == pytest.approx(low * slope[x <= low].sum().item(), rel=1e-5)
    assert found["log_high"] == pytest.approx(high * slope[x >= high].sum().item(), rel=1e-5)


def test_pact_of_a_weight_has_one_symmetric_clip() -> None:
    quantizer, x, slope = ready("pact", Scheme(4, symmetric=True), -0.7, 0.5), values(), values(1)
    quantizer.fake_quantize(x).backward(slope)
    outside = x.abs() >= 0.7
    assert grads(quantizer) == {"log_high": pytest.approx(0.7 * (slope * x.sign())[outside].sum().item(), rel=1e-5)}


def test_pact_has_the_derivative_of_clamp() -> None:
    """Its gradient of the clips is that of clamp(x, low, high), by finite differences."""
    quantizer, x, slope = ready("pact", Scheme(8), -0.4, 1.1), values(), values(1)
    quantizer.fake_quantize(x).backward(slope)
    low, high = (end.item() for end in quantizer.clips())

    def soft(log_low: float, log_high: float) -> float:
        return float((slope * x.clamp(low * math.exp(log_low), high * math.exp(log_high))).sum())

    found, h = grads(quantizer), 1e-6
    assert found["log_low"] == pytest.approx((soft(h, 0) - soft(-h, 0)) / (2 * h), rel=1e-4)
    assert found["log_high"] == pytest.approx((soft(0, h) - soft(0, -h)) / (2 * h), rel=1e-4)


def test_pact_decays_its_clips() -> None:
    quantizer = ready("pact", Scheme(4), -0.4, 1.1)
    assert isinstance(quantizer, PACT)
    loss = quantizer.regularization()
    low, high = (end.item() for end in quantizer.clips())
    assert loss.item() == pytest.approx(low**2 + high**2)
    loss.backward()
    assert grads(quantizer) == {"log_low": pytest.approx(2 * low**2), "log_high": pytest.approx(2 * high**2)}
    symmetric = ready("pact", Scheme(4, symmetric=True), -0.4, 1.1)
    assert isinstance(symmetric, PACT)
    assert symmetric.regularization().item() == pytest.approx(1.1**2)


def test_a_clip_keeps_its_sign_and_zero_stays_zero() -> None:
    quantizer = ready("pact", Scheme(4), 0.0, 1.5)
    with torch.no_grad():
        for parameter in quantizer.parameters():
            parameter.fill_(2.0)
    low, high = quantizer.clips()
    assert low.item() == 0
    assert high.item() == pytest.approx(1.5 * math.exp(2))


def scalars(*numbers: float) -> list[Tensor]:
    return [torch.tensor([n], dtype=torch.float64, requires_grad=True) for n in numbers]


@pytest.mark.parametrize("steps", [3, 7, 255])
@pytest.mark.parametrize("alpha", [0.02, 0.25, 0.45])
def test_the_soft_staircase_is_differentiated_correctly(steps: int, alpha: float) -> None:
    x = values()[0].clone().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda *tensors: soft_staircase(*tensors, steps), (x, *scalars(-0.4, 1.1, alpha)), eps=1e-7, atol=1e-4
    )


@pytest.mark.parametrize("alpha", [0.02, 0.25, 0.45])
def test_the_soft_staircase_is_that_of_the_paper(alpha: float) -> None:
    """Written out with a loop over the intervals."""
    low, high, steps = -0.4, 1.1, 7
    delta = (high - low) / steps
    k, s = math.log(2 / alpha - 1) / delta, 1 / (1 - alpha)

    def paper(v: float) -> float:
        for i in range(steps):
            left = low + i * delta
            if left <= v < left + delta:
                return left + delta * (s * math.tanh(k * (v - left - delta / 2)) + 1) / 2
        return low if v < low else high

    x = values()[0]
    found = soft_staircase(x, *scalars(low, high, alpha), steps)
    torch.testing.assert_close(found.detach(), torch.tensor([paper(v) for v in x.tolist()], dtype=torch.float64))


def test_a_sharp_staircase_rounds_and_a_soft_one_is_the_identity() -> None:
    x = torch.linspace(-0.4, 1.1, 500, dtype=torch.float64)
    low, high = scalars(-0.4, 1.1)
    sharp = soft_staircase(x, low, high, torch.tensor(1e-9, dtype=torch.float64), 3)
    assert ((sharp - (low + ((x - low) / 0.5).round() * 0.5)).abs() < 1e-3).double().mean() > 0.6
    soft = soft_staircase(x, low, high, torch.tensor(1 - 1e-4, dtype=torch.float64), 3)
    torch.testing.assert_close(soft, x, atol=1e-4, rtol=0)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("symmetric", [False, True], ids=["affine", "symmetric"])
def test_dsq_has_the_gradient_of_the_soft_staircase(bits: int, symmetric: bool) -> None:
    """All parameters, by finite differences of the staircase over their clips."""
    scheme = Scheme(bits, symmetric=symmetric)
    quantizer, x, slope = ready("dsq", scheme, -0.4, 1.1), values().requires_grad_(), values(1)
    assert isinstance(quantizer, DSQ)
    quantizer.fake_quantize(x).backward(slope)
    found = grads(quantizer)
    low, high = (end.item() for end in quantizer.clips())
    steps = scheme.quant_max - scheme.quant_min

    def soft(log_low: float = 0.0, log_high: float = 0.0, logit: float = 0.0, shift: float = 0.0) -> Tensor:
        log_low = log_high if symmetric else log_low
        ends = scalars(low * math.exp(log_low), high * math.exp(log_high), 0.5 / (1 + math.exp(-logit)))
        return slope * soft_staircase(x.detach() + shift, *ends, steps).detach()

    h = 1e-6
    for name, value in found.items():
        difference = (soft(**{name: h}) - soft(**{name: -h})).sum().item() / (2 * h)
        assert value == pytest.approx(difference, rel=1e-3, abs=1e-5)
    assert set(found) == {"log_high", "logit"} | (set() if symmetric else {"log_low"})
    assert x.grad is not None
    difference = (soft(shift=h) - soft(shift=-h)) / (2 * h)
    away = ((x.detach() - low) / ((high - low) / steps)).frac().abs().sub(0.5).abs() < 0.49
    torch.testing.assert_close(x.grad[away], difference[away], rtol=1e-3, atol=1e-4)
    outside = (x < low) | (x > high)
    assert outside.any()
    assert x.grad[outside].eq(0).all()
    assert x.grad[~outside].ne(0).all()


def test_dsq_softness_starts_at_a_quarter_and_stays_below_a_half() -> None:
    quantizer = ready("dsq", Scheme(4), -0.4, 1.1)
    assert isinstance(quantizer, DSQ)
    assert quantizer.alpha().item() == 0.25
    with torch.no_grad():
        quantizer.logit.fill_(100.0)
    assert quantizer.alpha().item() == 0.5
