"""Ranges that observers find."""

import math

import pytest
import torch
from torch import Tensor

from hessrank.errors import ModelError
from hessrank.quant.quantizers import OBSERVERS, Observer
from hessrank.quant.quantizers.grids import range_to_grid
from hessrank.quant.quantizers.rounding import round_to_grid
from hessrank.quant.scheme import Scheme

SCHEME = Scheme(4)


def make(name: str, scheme: Scheme = SCHEME, axis: int | None = None, channels: int | None = None) -> Observer:
    return OBSERVERS.resolve(name)(scheme, axis, channels)


def seen_by(name: str, *batches: Tensor, scheme: Scheme = SCHEME) -> tuple[float, float]:
    observer = make(name, scheme)
    for batch in batches:
        observer.observe(batch)
    low, high = observer.range()
    assert low.shape == high.shape == ()
    return low.item(), high.item()


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


each_observer = pytest.mark.parametrize("name", list(OBSERVERS))


def test_minmax_keeps_the_ends_of_all_batches() -> None:
    assert seen_by("minmax", torch.tensor([1.0, 2.0]), torch.tensor([[-3.0]]), torch.tensor(1.5)) == (-3, 2)


def test_moving_average_starts_with_the_first_batch_and_takes_a_tenth_of_each_later_one() -> None:
    batches = [torch.tensor([-1.0, 2.0]), torch.tensor([-3.0, 4.0]), torch.tensor([0.0, 10.0])]
    expected = (0.9 * (0.9 * -1 + 0.1 * -3), 0.9 * (0.9 * 2 + 0.1 * 4) + 0.1 * 10)
    assert seen_by("moving-average", *batches) == pytest.approx(expected, rel=1e-6)


def test_percentile_leaves_one_value_in_ten_thousand_out_on_either_side() -> None:
    x = gaussian(100, 10_000)
    x[0, 0], x[1, 1] = -50.0, 20.0
    low, high = seen_by("percentile", *x.split(10))
    exact = x.flatten().sort().values
    bin_width = 64 / 2**13
    assert low == pytest.approx(exact[100].item(), abs=bin_width)
    assert high == pytest.approx(exact[-100].item(), abs=bin_width)


def test_percentile_of_few_values_is_their_range() -> None:
    assert seen_by("percentile", torch.tensor([-1.0, 0.25, 3.0])) == pytest.approx((-1, 3), abs=4 / 2**13)


def error(x: Tensor, low: float, high: float, scheme: Scheme) -> float:
    scale, zero_point = range_to_grid(torch.tensor([low]), torch.tensor([high]), scheme)
    x = x.double()
    return float((round_to_grid(x, scale.double(), zero_point, scheme, None) - x).square().mean())


DISTRIBUTIONS = {
    "normal": gaussian(20_000),
    "heavy tails": gaussian(20_000).pow(3),
    "behind a ReLU": gaussian(20_000).pow(3).clamp(min=0),
    "behind a LeakyReLU": torch.nn.functional.leaky_relu(gaussian(20_000).pow(3), 0.2),
    "negative": -gaussian(20_000).square(),
}


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("symmetric", [False, True], ids=["affine", "symmetric"])
@pytest.mark.parametrize("x", DISTRIBUTIONS.values(), ids=DISTRIBUTIONS)
def test_mse_range_is_as_good_as_an_exhaustive_search(x: Tensor, symmetric: bool, bits: int) -> None:
    scheme = Scheme(bits, symmetric=symmetric)
    low, high = seen_by("mse", *x.split(3000), scheme=scheme)
    parts = torch.logspace(-6, 0, 40, base=2).tolist()
    ends = (float(x.min()), float(x.max()))
    if symmetric:
        reach = max(-ends[0], ends[1])
        best = min(error(x, -f * reach, f * reach, scheme) for f in parts)
    else:
        best = min(error(x, f * ends[0], g * ends[1], scheme) for f in parts for g in parts)
    found = error(x, low, high, scheme)
    assert found <= 1.03 * best
    assert found <= 1.001 * error(x, *ends, scheme)


def test_mse_clips_an_outlier_at_few_bits_and_not_at_many() -> None:
    x = gaussian(100_000).clamp(-4, 4)
    x[0] = 40.0
    assert seen_by("mse", x, scheme=Scheme(4))[1] < 5
    assert seen_by("mse", x, scheme=Scheme(16))[1] > 39


def test_mse_takes_powers_of_two_into_account() -> None:
    x, scheme = gaussian(20_000), Scheme(3, symmetric=True, pot_scale=True)
    low, high = seen_by("mse", x, scheme=scheme)
    assert error(x, low, high, scheme) <= min(error(x, -(2.0**e), 2.0**e, scheme) for e in range(-3, 4)) * 1.001


@pytest.mark.parametrize("bits", [2, 8])
def test_mean_magnitude_is_the_start_of_lsq(bits: int) -> None:
    x, scheme = gaussian(4, 1000), Scheme(bits, symmetric=True)
    low, high = seen_by("mean-magnitude", *x, scheme=scheme)
    scale, _ = range_to_grid(torch.tensor([low]), torch.tensor([high]), scheme)
    assert scale.item() == pytest.approx(2 * x.abs().mean().item() / math.sqrt(scheme.quant_max), rel=1e-5)


def test_mean_magnitude_covers_only_signs_that_occur() -> None:
    low, high = seen_by("mean-magnitude", torch.tensor([0.0, 1.0]), scheme=Scheme(8))
    assert (low, high) == pytest.approx((0, 2 * 0.5 * math.sqrt(127.5)))
    assert seen_by("mean-magnitude", torch.tensor([-1.0]))[1] == 0


@each_observer
@pytest.mark.parametrize("axis", [0, 1])
def test_each_channel_has_the_range_it_would_have_alone(name: str, axis: int) -> None:
    x = gaussian(3, 4, 60) * torch.logspace(-2, 2, (3, 4)[axis]).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
    channels = x.shape[axis]
    observer = make(name, Scheme(4, per_channel=True), axis, channels)
    observer.observe(x)
    observer.observe(x / 2)
    for channel in range(channels):
        alone = make(name, Scheme(4, per_channel=True), 0, 1)
        for part in (x, x / 2):
            alone.observe(part.select(axis, channel)[None])
        for end, expected in zip(observer.range(), alone.range(), strict=True):
            assert end.shape == (channels,)
            assert end[channel].item() == pytest.approx(expected.item())


@each_observer
def test_state_does_not_grow_with_the_data_and_is_not_saved(name: str) -> None:
    observer = make(name)
    observer.observe(gaussian(10))
    before = {key: value.shape for key, value in observer.named_buffers()}
    for seed in range(5):
        observer.observe(gaussian(1000, seed=seed))
    assert {key: value.shape for key, value in observer.named_buffers()} == before
    assert not observer.state_dict()


@each_observer
def test_a_reset_observer_starts_anew(name: str) -> None:
    observer, fresh = make(name), make(name)
    observer.observe(100 * gaussian(50))
    observer.reset()
    for one in (observer, fresh):
        one.observe(gaussian(50, seed=1))
    assert observer.range() == fresh.range()


@each_observer
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf], ids=str)
def test_a_value_that_no_grid_holds_is_an_error(name: str, bad: float) -> None:
    x = gaussian(2, 10)
    x[1, 3] = bad
    with pytest.raises(ModelError, match=rf"1 of 20 values are NaN or infinite, the first {bad}: no grid holds"):
        make(name).observe(x)


@each_observer
def test_an_observer_that_saw_nothing_says_so(name: str) -> None:
    with pytest.raises(ModelError, match="nothing was observed: run the calibration data"):
        make(name).range()


def test_a_tensor_without_values_or_with_other_channels_is_an_error() -> None:
    with pytest.raises(ModelError, match=r"shape \(0, 3\) has no values"):
        make("minmax").observe(torch.zeros(0, 3))
    with pytest.raises(ModelError, match=r"shape \(2, 5\) has 5 channels along axis 1, its quantizer 4"):
        make("minmax", Scheme(4, per_channel=True), 1, 4).observe(torch.zeros(2, 5))


@each_observer
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.half], ids=str)
def test_any_floating_dtype_is_observed_in_float32(name: str, dtype: torch.dtype) -> None:
    x = gaussian(30).to(dtype)
    observer, expected = make(name), make(name)
    observer.observe(x)
    expected.observe(x.float())
    assert observer.range() == expected.range()
    assert observer.range()[0].dtype == torch.float32


@each_observer
def test_zeros_have_the_range_zero(name: str) -> None:
    assert seen_by(name, torch.zeros(10)) == pytest.approx((0, 0), abs=1e-30)
