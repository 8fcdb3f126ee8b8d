"""LSQ and LSQ+: gradients against the papers' formulas, and against finite differences."""

import math

import pytest
import torch
from torch import Tensor

from hessrank.quant.quantizers import LSQ, LSQPlus, make_quantizer
from hessrank.quant.scheme import Scheme

each_bits = pytest.mark.parametrize("bits", [2, 3, 4, 8])


def values(seed: int = 0) -> Tensor:
    return torch.randn(6, 50, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ready(method: str, scheme: Scheme, low: float = -0.8, high: float = 1.1) -> LSQ:
    quantizer = make_quantizer(method, scheme)
    assert isinstance(quantizer, LSQ)
    quantizer.set_range(torch.tensor(low), torch.tensor(high))
    with torch.no_grad():
        for parameter in quantizer.parameters():
            parameter.add_(0.07)
    return quantizer


def gradients(quantizer: LSQ, x: Tensor, slope: Tensor) -> dict[str, float]:
    x.requires_grad_()
    quantizer.fake_quantize(x).backward(slope)
    return {name: float(p.grad) for name, p in quantizer.named_parameters() if p.grad is not None}


@each_bits
@pytest.mark.parametrize("symmetric", [False, True], ids=["affine", "symmetric"])
def test_lsq_has_the_gradient_of_the_paper(bits: int, symmetric: bool) -> None:
    """Equations 3 and 5 and section 2.2, with the factor s of the logarithm."""
    scheme = Scheme(bits, symmetric=symmetric)
    quantizer, x, slope = ready("lsq", scheme), values(), values(1)
    found = gradients(quantizer, x, slope)["log_gain"]

    s, z = quantizer.grid().scale.item(), int(quantizer.grid().zero_point)
    negative, positive = z - scheme.quant_min, scheme.quant_max - z
    of_step = torch.tensor(
        [
            -negative if v <= -negative else positive if v >= positive else round(v) - v
            for v in (x.detach() / s).flatten().tolist()
        ],
        dtype=torch.float64,
    )
    g = 1 / math.sqrt(x.numel() * scheme.quant_max)
    assert found == pytest.approx(s * g * float(of_step @ slope.flatten()), rel=1e-5)
    inside = (-negative < x.detach() / s) & (x.detach() / s < positive)
    assert 0 < inside.sum() < x.numel()
    assert x.grad is not None
    assert torch.equal(x.grad, slope * inside)


@each_bits
def test_lsq_has_the_derivative_of_its_soft_function(bits: int) -> None:
    """With the rounding residue held fixed, s · (clip(x/s, −Q_N, Q_P) + residue) is differentiable in s."""
    scheme = Scheme(bits)
    quantizer, x, slope = ready("lsq", scheme), values(), values(1)
    s0, z = quantizer.grid().scale.double(), int(quantizer.grid().zero_point)
    first, last = scheme.quant_min - z, scheme.quant_max - z
    residue = ((x / s0).round() - x / s0) * ((x / s0 > first) & (x / s0 < last))

    def soft(log_gain: float) -> float:
        s = s0 * math.exp(log_gain)
        return float((slope * s * ((x / s).clamp(first, last) + residue)).sum())

    difference = (soft(1e-6) - soft(-1e-6)) / 2e-6
    g = quantizer.damping(x)
    assert gradients(quantizer, x, slope)["log_gain"] == pytest.approx(g * difference, rel=1e-4)


@each_bits
def test_lsq_plus_has_the_gradient_of_the_paper(bits: int) -> None:
    scheme = Scheme(bits)
    quantizer, x, slope = ready("lsq+", scheme), values(), values(1)
    found = gradients(quantizer, x, slope)

    s, z = quantizer.grid().scale.item(), int(quantizer.grid().zero_point)
    beta, last = -z * s, scheme.quant_max
    v = (x.detach() - beta) / s
    below, above = v <= 0, v >= last
    inside = ~(below | above)
    g = 1 / math.sqrt(x.numel() * last)
    of_step = (slope * ((v.round() - v) * inside + last * above)).sum().item()
    of_offset = (slope * ~inside).sum().item()
    width = last * quantizer.scale.item()
    assert 0 < z < last
    assert below.any()
    assert above.any()
    assert found["log_gain"] == pytest.approx(s * g * of_step, rel=1e-4)
    assert found["offset"] == pytest.approx(width * g * of_offset, rel=1e-4)
    assert x.grad is not None
    assert torch.equal(x.grad, slope * inside)


def test_lsq_plus_moves_its_zero_point_and_keeps_it_on_the_grid() -> None:
    quantizer = ready("lsq+", Scheme(4), 0.0, 1.5)
    assert isinstance(quantizer, LSQPlus)
    for offset, expected in ((0.0, 0), (-0.5, 7), (-0.2, 3), (-5.0, 15), (1.0, 0)):
        with torch.no_grad():
            quantizer.offset.fill_(offset)
            quantizer.log_gain.fill_(0.07)
        assert int(quantizer.grid().zero_point) == expected


def test_lsq_plus_on_a_symmetric_grid_is_lsq() -> None:
    scheme, x, slope = Scheme(4, symmetric=True), values(), values(1)
    ours, theirs = ready("lsq+", scheme), ready("lsq", scheme)
    assert gradients(ours, x, slope) == gradients(theirs, x, slope)
    assert torch.equal(ours.fake_quantize(x), theirs.fake_quantize(x))


def test_the_affine_zero_point_of_lsq_stays_where_calibration_put_it() -> None:
    quantizer = ready("lsq", Scheme(8))
    before = int(quantizer.grid().zero_point)
    with torch.no_grad():
        quantizer.log_gain.fill_(1.0)
    assert int(quantizer.grid().zero_point) == before
    assert quantizer.grid().scale.item() == pytest.approx(math.e * 1.9 / 255)


def test_damping_counts_the_elements_that_share_a_scale() -> None:
    scheme = Scheme(4, per_channel=True, symmetric=True)
    quantizer = make_quantizer("lsq", scheme, axis=1, channels=5)
    assert isinstance(quantizer, LSQ)
    assert quantizer.damping(torch.zeros(8, 5, 3)) == pytest.approx(1 / math.sqrt(24 * 7))
