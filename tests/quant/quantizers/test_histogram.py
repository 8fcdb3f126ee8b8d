"""A histogram in a fixed number of counters."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hessrank.quant.quantizers.histogram import RunningHistogram


def heavy(seed: int, rows: int = 3, count: int = 2000) -> torch.Tensor:
    """Return values whose magnitudes range over many powers of two, with a few zeros."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, count, generator=generator).pow(5) * torch.tensor([[1e-6], [1.0], [1e6]])[:rows]
    x[:, ::7] = 0
    return x


def filled(*batches: torch.Tensor, bins: int = 1024) -> RunningHistogram:
    histogram = RunningHistogram(len(batches[0]), bins)
    for batch in batches:
        histogram.add(batch)
    return histogram


@settings(deadline=None, max_examples=30)
@given(st.permutations(range(5)), st.integers(0, 1000))
def test_batches_and_their_order_change_nothing(order: list[int], seed: int) -> None:
    parts = list(heavy(seed).chunk(5, 1))
    whole, split = filled(heavy(seed)), filled(*(parts[i] for i in order))
    assert torch.equal(whole.counts, split.counts)
    assert torch.equal(whole.exponent, split.exponent)


def test_no_value_is_lost_and_each_lies_in_its_bin() -> None:
    x = heavy(0)
    histogram = filled(x)
    assert histogram.counts.sum(1).tolist() == [2000] * 3
    lower, width = histogram.edges()
    for row in range(3):
        expected = ((x[row] >= lower[row, :, None]) & (x[row] < lower[row, :, None] + width[row])).sum(1)
        assert torch.equal(histogram.counts[row], expected)


@pytest.mark.parametrize("largest", [1.0, 2.0**-100, 2.0**100, 1e-38, 3e38, 0.0])
def test_powers_of_two_and_extremes_are_counted(largest: float) -> None:
    histogram = filled(torch.tensor([[-largest, 0.0, largest]]), bins=64)
    assert histogram.counts.sum() == 3


@pytest.mark.parametrize("share", [0.0001, 0.01, 0.5, 0.99, 0.9999])
def test_quantiles_are_within_a_bin_of_the_exact_ones(share: float) -> None:
    x = heavy(1, count=40_000)
    histogram = filled(*x.split(7000, 1))
    exact = x.double().quantile(share, 1, interpolation="lower")
    assert ((histogram.quantile(share) - exact).abs() <= 1.01 * histogram.edges()[1][:, 0]).all()


@pytest.mark.parametrize("largest", [0.75, 1.0, 1.99, 3e-6])
def test_a_bin_is_at_most_four_parts_of_the_largest_magnitude(largest: float) -> None:
    width = filled(torch.tensor([[-largest, 0.1 * largest]]), bins=64).edges()[1].item()
    assert 2 / 64 < width / largest <= 4 / 64
