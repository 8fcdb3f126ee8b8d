"""Rounding to a grid and its gradients, against torch's own operators and the formulas written out."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hessrank.quant.quantizers.grids import across, range_to_grid
from hessrank.quant.quantizers.rounding import round_to_grid
from hessrank.quant.scheme import Scheme

SHAPE = (3, 4, 50)


def case(scheme: Scheme, axis: int | None, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """Return values, of which some lie outside the grid, and the grid's scale and zero point."""
    generator = torch.Generator().manual_seed(scheme.bits)
    x = torch.randn(SHAPE, generator=generator).to(dtype)
    channels = 1 if axis is None else SHAPE[axis]
    low = -0.5 - torch.rand(channels, generator=generator)
    scale, zero_point = range_to_grid(low, 0.5 + torch.rand(channels, generator=generator), scheme)
    return x, scale.to(dtype), zero_point


SCHEMES = [Scheme(bits, symmetric=symmetric) for bits in (2, 4, 8, 16) for symmetric in (False, True)]
each_scheme = pytest.mark.parametrize("scheme", SCHEMES, ids=str)
each_axis = pytest.mark.parametrize("axis", [None, 0, 1], ids=["per tensor", "axis 0", "axis 1"])


@each_scheme
@each_axis
def test_forward_and_gradient_are_those_of_torch(scheme: Scheme, axis: int | None) -> None:
    """In float32 x/s and x·(1/s) may fall on either side of a tie: then the two are a step apart."""
    x, scale, zero_point = case(scheme, axis, torch.float32)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    y = round_to_grid(ours, scale, zero_point, scheme, axis, margin=0.5)
    if axis is None:
        expected = torch.fake_quantize_per_tensor_affine(
            theirs, scale, zero_point, scheme.quant_min, scheme.quant_max
        )
    else:
        expected = torch.fake_quantize_per_channel_affine(
            theirs, scale, zero_point, axis, scheme.quant_min, scheme.quant_max
        )
    same = y == expected
    assert same.float().mean() > 0.99
    assert ((y - expected).abs() <= across(scale, axis, 3) * 1.001).all()
    slope = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    y.backward(slope)
    expected.backward(slope)
    assert ours.grad is not None
    assert theirs.grad is not None
    assert torch.equal(ours.grad, theirs.grad)
    assert (ours.grad == 0).any()


@each_scheme
@each_axis
def test_gradients_are_the_formulas_written_out(scheme: Scheme, axis: int | None) -> None:
    x, scale, zero_point = case(scheme, axis)
    low, high = (
        ((integer - zero_point) * scale).requires_grad_() for integer in (scheme.quant_min, scheme.quant_max)
    )
    x.requires_grad_()
    scale.requires_grad_()
    slope = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    round_to_grid(x, scale, zero_point, scheme, axis, low=low, high=high).backward(slope)

    v = (x / across(scale, axis, 3)).detach()
    first, last = (across(i - zero_point, axis, 3) for i in (scheme.quant_min, scheme.quant_max))
    below, above = v <= first, v >= last
    inside = ~(below | above)
    others = tuple(d for d in range(3) if axis is None or d != axis)
    sums = [(slope * part).sum(others).reshape(-1) for part in ((v.round() - v) * inside, below, above)]
    assert below.any()
    assert above.any()
    assert x.grad is not None
    assert torch.equal(x.grad, slope * inside)
    for found, expected in zip((scale.grad, low.grad, high.grad), sums, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_within_half_a_step_beyond_the_end_the_scale_has_the_gradient_of_the_end() -> None:
    """LSQ's formula, where torch's own learnable kernel says −0.4."""
    scheme = Scheme(2, symmetric=True)
    zero_point = torch.zeros(1, dtype=torch.int32)
    x, scale = torch.tensor([1.4]), torch.ones(1, requires_grad=True)
    round_to_grid(x, scale, zero_point, scheme, None, low=-scale, high=scale).sum().backward()
    assert scale.grad is not None
    assert scale.grad.item() == 1
    other = torch.ones(1, requires_grad=True)
    torch._fake_quantize_learnable_per_tensor_affine(x, other, torch.zeros(1), -1, 1, 1.0).sum().backward()
    assert other.grad is not None
    assert other.grad.item() == pytest.approx(-0.4)


@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels last"])
def test_memory_format_changes_no_gradient(channels_last: bool) -> None:
    x = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    slope = x.flip(0).cos()
    if channels_last:
        x = x.to(memory_format=torch.channels_last)
    scale = torch.tensor([0.1], dtype=torch.float64, requires_grad=True)
    zero_point = torch.tensor([3], dtype=torch.int32)
    round_to_grid(x, scale, zero_point, Scheme(4), None, low=-3 * scale, high=12 * scale).backward(slope)
    v = (x / 0.1).contiguous()
    expected = (slope * torch.where(v <= -3, -3.0, torch.where(v >= 12, 12.0, v.round() - v))).sum()
    assert scale.grad is not None
    torch.testing.assert_close(scale.grad[0], expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.half], ids=str)
def test_half_precision_is_rounded_once_at_the_end(dtype: torch.dtype) -> None:
    x, scale, zero_point = case(Scheme(10), None, torch.float32)
    x = x.to(dtype)
    y = round_to_grid(x, scale, zero_point, Scheme(10), None)
    assert y.dtype == dtype
    assert torch.equal(y, round_to_grid(x.float(), scale, zero_point, Scheme(10), None).to(dtype))


def test_numbers_and_tensors_round_alike() -> None:
    """One scale as a number is the fast way on a CPU; as a tensor it is how other devices and channels go."""
    x, scale, zero_point = case(Scheme(8), None)
    one_channel = x.reshape(1, -1).requires_grad_()
    x.requires_grad_()
    scale.requires_grad_()
    fast = round_to_grid(x, scale, zero_point, Scheme(8), None, low=scale, high=scale)
    fast.sum().backward()
    found, scale.grad = scale.grad, None
    slow = round_to_grid(one_channel, scale, zero_point, Scheme(8), 0, low=scale, high=scale)
    slow.sum().backward()
    assert torch.equal(fast.flatten(), slow.flatten())
    assert x.grad is not None
    assert one_channel.grad is not None
    assert torch.equal(x.grad.flatten(), one_channel.grad.flatten())
    torch.testing.assert_close(found, scale.grad)


values = st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=20)
ranges = st.tuples(st.floats(-1e3, 0, width=32), st.floats(0, 1e3, width=32))
schemes = st.builds(Scheme, bits=st.integers(2, 16), symmetric=st.booleans(), pot_scale=st.booleans())


@settings(deadline=None)
@given(values, ranges, schemes)
def test_rounding_twice_is_rounding_once(x: list[float], ends: tuple[float, float], scheme: Scheme) -> None:
    scale, zero_point = range_to_grid(torch.tensor([ends[0]]), torch.tensor([ends[1]]), scheme)
    once = round_to_grid(torch.tensor(x), scale, zero_point, scheme, None)
    assert torch.equal(round_to_grid(once, scale, zero_point, scheme, None), once)


@settings(deadline=None)
@given(values, ranges, schemes)
def test_inside_the_grid_the_error_is_at_most_half_a_step(
    x: list[float], ends: tuple[float, float], scheme: Scheme
) -> None:
    scale, zero_point = range_to_grid(torch.tensor([ends[0]]), torch.tensor([ends[1]]), scheme)
    step = scale.double()
    low, high = ((integer - zero_point) * step for integer in (scheme.quant_min, scheme.quant_max))
    value = torch.tensor(x, dtype=torch.float64)
    y = round_to_grid(value, step, zero_point, scheme, None)
    clipped = torch.clamp(value, low, high)
    assert ((y - clipped).abs() <= step * (0.5 + 1e-9)).all()
    assert (y >= low).all()
    assert (y <= high).all()
