"""Samples of several sizes: shapes, sizes, MACs and probes come from every sample."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hessrank import make_policy, prepare, rank, summarize, verify


class Fully(nn.Module):
    """A convolution, and optionally a mean, so that outputs have one size or several."""

    def __init__(self, *, pooled: bool) -> None:
        super().__init__()
        self.a, self.b, self.pooled = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 2, 1), pooled

    def forward(self, x: Tensor) -> Tensor:
        y = self.b(self.a(x).relu())
        return y.mean((2, 3)) if self.pooled else y


def made(pooled: bool, sizes: tuple[int, ...]) -> tuple[nn.Module, list[Tensor]]:
    torch.manual_seed(0)
    return Fully(pooled=pooled).eval(), [torch.randn(1, n, n + 1) for n in sizes]


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("sizes", [(5, 3), (3, 5), (4, 16, 7)], ids=str)
@pytest.mark.parametrize("estimator", ["auto", "exact", "gauss-newton"])
def test_sizes_are_means_and_traces_are_those_of_each_alone(
    pooled: bool, sizes: tuple[int, ...], estimator: str
) -> None:
    model, data = made(pooled, sizes)
    options = {"loss": "self-mse", "estimator": estimator, "max_probes": 4, "bits": (4, 8)}
    together = rank(model, data, **options)
    alone = [rank(model, [sample], **options) for sample in data]
    for layer in together:
        for column in ("numel", "macs"):
            assert together[layer][column] == pytest.approx(np.mean([one[layer][column] for one in alone]))
        if estimator == "exact":
            assert together[layer]["trace"] == pytest.approx(np.mean([one[layer]["trace"] for one in alone]))
    low, high = min(sizes), max(sizes)
    assert together["a"]["shape"] == f"4x{low}-{high}x{low + 1}-{high + 1}"


def test_predictions_hold_and_a_policy_can_be_made() -> None:
    model, data = made(False, (4, 16, 7))
    ranking = rank(model, data, loss="self-mse")
    assert verify(model, data, ranking, bits=8).to_frame()["ratio"].between(0.6, 1.6).all()
    policy = make_policy(ranking, "budget", budget_mean_bits=6)
    macs = sum(4 * 9 * n * (n + 1) + 8 * n * (n + 1) for n in (4, 16, 7)) / 3
    eight = summarize(make_policy(ranking, "uniform", base_bits=8), ranking)
    assert eight.costs.bops == pytest.approx(64 * macs, rel=1e-6)
    prepare(model, policy, data)


def test_batches_of_several_sizes_go_one_by_one() -> None:
    model, data = made(True, (5, 5, 3))
    options = {"loss": "self-mse", "max_probes": 4, "bits": (8,)}
    one, together = rank(model, data, **options), rank(model, data, batch_size=2, **options)
    assert any("several sizes: they went one by one" in note for note in together.warnings)
    np.testing.assert_array_equal(one.to_frame()["trace"], together.to_frame()["trace"])
