"""Which estimator `auto` gives to which layer, and when sampling stops."""

import pytest
import torch
from helpers.small_networks import CASES, Gate
from torch import Tensor, nn

from hessrank.analysis.rank import rank
from hessrank.analysis.result.ranking import Ranking


def case(name: str) -> tuple[nn.Module, Tensor, Tensor]:
    return next(c for c in CASES if c.name == name).make()


def chosen(ranking: Ranking) -> dict[str, str]:
    frame = ranking.to_frame()
    return dict(zip(frame["layer"], frame["estimator"], strict=True))


@pytest.mark.parametrize("name", [c.name for c in CASES])
def test_few_outputs_and_the_self_loss_are_exact(name: str) -> None:
    model, x, _ = case(name)
    ranking = rank(model, x)
    assert set(chosen(ranking).values()) == {"exact"}
    assert ranking.info["order"]["stopped_by"] == "exact"
    assert "no probe noise" in ranking.info["estimators"][0]["why"]


def test_many_outputs_and_the_self_loss_take_gauss_newton() -> None:
    ranking = rank(nn.Sequential(nn.Linear(4, 70), nn.GELU()), torch.randn(3, 4))
    assert set(chosen(ranking).values()) == {"gauss-newton"}


@pytest.mark.parametrize("name", [c.name for c in CASES if c.flat and c.name != "leaky-relu"])
def test_a_task_loss_on_a_piecewise_linear_network_is_exact(name: str) -> None:
    model, x, labels = case(name)
    ranking = rank(model, (x, labels), loss="cross-entropy", weights=False)
    assert set(chosen(ranking).values()) == {"exact"}


def test_what_autograd_does_not_tell_counts_as_curved() -> None:
    """Circular padding is written in place, through a node that hides what it does."""
    model, x, labels = case("leaky-relu")
    found = chosen(rank(model, (x, labels), loss="cross-entropy", weights=False, max_probes=2))
    assert found.pop("input_1") == "hutchinson"
    assert set(found.values()) == {"exact"}


def test_a_task_loss_before_a_gelu_takes_hutchinson_and_behind_it_does_not() -> None:
    model, x, labels = case("gelu")
    ranking = rank(model, (x, labels), loss="cross-entropy", max_probes=4)
    assert chosen(ranking) == {
        "input_1": "hutchinson",
        "0": "hutchinson",
        "1": "hutchinson",
        "2": "hutchinson",
        "3": "exact",
        "4": "exact",
    }
    reasons = {entry["estimator"]: entry["why"] for entry in ranking.info["estimators"]}
    assert "Gelu" in reasons["hutchinson"]
    assert "piecewise linear" in reasons["exact"]


def test_asking_for_gauss_newton_where_it_is_not_the_hessian_is_done_and_said() -> None:
    torch.manual_seed(0)
    data = torch.randn(4, 5), torch.tensor([0, 1, 2, 0])
    ranking = rank(Gate(), data, loss="cross-entropy", estimator="gauss-newton", max_probes=4)
    assert "not the Hessian's" in ranking.info["estimators"][0]["why"]


def test_sampling_stops_when_the_order_is_settled() -> None:
    """Layers whose traces are decades apart need no more than the first probes."""
    model = nn.Sequential(*(Scale(0.1) for _ in range(4)))
    ranking = rank(model, torch.randn(1, 80), loss="self-mse", max_probes=4096)
    assert ranking.info["order"] == {"stopped_by": "settled", "open_pairs": 0, "of_pairs": 8}
    assert ranking.to_frame()["num_probes"].max() == 16
    assert ranking.to_frame()["converged"].all()


def test_sampling_ends_at_max_probes_and_says_what_is_open() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 80))
    ranking = rank(model, torch.randn(1, 6), loss="self-mse", max_probes=2, tolerance=1e-6)
    assert ranking.info["order"]["stopped_by"] == "max-probes"
    assert ranking.to_frame()["num_probes"].max() == 2
    assert any("2 probes a sample are spent" in note for note in ranking.warnings)


def test_sampling_ends_early_where_only_more_samples_would_help() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 80))
    x = torch.randn(4, 6) * torch.tensor([0.01, 1, 10, 100])[:, None]
    ranking = rank(nn.Sequential(nn.Tanh(), model), x, loss="self-mse", max_probes=100_000, tolerance=1e-6)
    assert ranking.info["order"]["stopped_by"] == "samples"
    assert any("use more of them (--num-samples)" in note for note in ranking.warnings)


class Scale(nn.Module):
    """Multiplies by a constant and bends a little, so that traces differ by the constant's square."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return torch.nn.functional.leaky_relu(x, 0.5) * self.factor
