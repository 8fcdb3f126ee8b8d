"""`compare` on rankings whose truth is known."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

import hessrank
from hessrank.analysis.result.compare import COLUMNS
from hessrank.analysis.result.ranking import Ranking
from hessrank.errors import ModelError, UnknownNameError


def ranking(values: np.ndarray, sems: np.ndarray, names: list[str] | None = None) -> Ranking:
    """Return a ranking with nothing in it but what `compare` reads."""
    frame = pd.DataFrame(
        {
            "layer": names or [f"layer{i}" for i in range(len(values))],
            "trace": values,
            "sem": sems,
            "numel": 2 ** np.arange(len(values)),
        }
    )
    return Ranking(frame.sort_values("trace", ascending=False, ignore_index=True), {})


TRUTH = np.array([10.0, 8.0, 6.0, 4.0, 2.0, 1.0])


def test_equal_rankings_agree() -> None:
    one = ranking(TRUTH, 0.01 * TRUTH)
    found = hessrank.compare(one, one)
    assert found.spearman.value == pytest.approx(1)
    assert found.kendall.value == pytest.approx(1)
    assert found.moved().empty
    assert not found.swapped
    assert list(found.to_frame().columns) == list(COLUMNS)
    assert (found.to_frame()["sigmas"] == 0).all()


def test_it_says_that_nothing_moved() -> None:
    """In place of an empty table; not where a layer moved, or a pair is swapped though no layer moved."""
    one = ranking(TRUTH, 0.01 * TRUTH)
    lines = str(hessrank.compare(one, one)).strip().splitlines()
    assert lines[0].startswith("6 layers by trace: Spearman 1.000")
    assert lines[1:] == ["nothing moved: no layer beyond its error bars, no pair swapped for certain"]
    other = TRUTH.copy()
    other[[0, 5]] = 0.5, 9.0
    assert "nothing moved" not in str(hessrank.compare(one, ranking(other, 0.01 * TRUTH)))
    sure = ranking(np.array([2.0, 1.0]), np.array([0.1, 0.1]))
    swapped = hessrank.compare(sure, ranking(np.array([1.0, 2.0]), np.array([0.1, 0.1])))
    assert swapped.swapped
    assert "nothing moved" not in str(swapped)
    assert "2 layers moved" in str(swapped)


def test_what_moved_beyond_its_error_bars_is_told_from_what_did_not() -> None:
    other = TRUTH.copy()
    other[[0, 5]] = 0.5, 9.0  # far beyond the errors
    other[[2, 3]] = 4.9, 5.1  # within them
    found = hessrank.compare(ranking(TRUTH, np.full(6, 0.4)), ranking(other, np.full(6, 0.4)))
    assert set(found.moved()["layer"]) == {"layer0", "layer5"}
    assert ("layer0", "layer5") in found.swapped
    assert ("layer2", "layer3") not in found.swapped
    assert found.spearman.value < 0.5


def test_another_size_at_the_same_place_is_no_move() -> None:
    found = hessrank.compare(ranking(TRUTH, 0.01 * TRUTH), ranking(3 * TRUTH, 0.03 * TRUTH))
    assert set(found.to_frame()["verdict"]) == {"other size"}
    np.testing.assert_allclose(found.to_frame()["ratio"], 1 / 3)


def test_the_order_by_mean_trace_divides_by_the_elements() -> None:
    one = ranking(TRUTH, 0.01 * TRUTH)
    frame = hessrank.compare(one, one, by="mean_trace").to_frame().set_index("layer")
    np.testing.assert_allclose(frame.loc["layer3", "value_a"], TRUTH[3] / 8)


@pytest.mark.slow
def test_false_alarms_are_rare() -> None:
    """Two noisy looks at one truth: hardly any of 400 × 30 layers may seem to have moved."""
    rng = np.random.default_rng(0)
    truth = np.sort(rng.lognormal(0, 1, 30))[::-1]
    moved = 0
    for _ in range(400):
        looks = [ranking(truth + 0.1 * truth * rng.standard_normal(30), 0.1 * truth) for _ in range(2)]
        moved += len(hessrank.compare(*looks).moved())
    assert moved < 0.001 * 400 * 30


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "error", "shift", "decades"),
    [(50, 0.1, 0, 2), (50, 0.1, 0.5, 2), (50, 0.3, 0.5, 2), (150, 0.03, 0.3, 6), (30, 0.1, 1.5, 2), (10, 0.2, 1, 1)],
)
def test_the_interval_holds_the_correlation_of_the_true_traces(
    count: int, error: float, shift: float, decades: float
) -> None:
    """95 % of the time at least: of 100 pairs of rankings no more than 11 may miss (a chance of 1 in 100)."""
    rng = np.random.default_rng(0)
    missed = 0
    for _ in range(100):
        one = 10 ** rng.uniform(0, decades, count)
        other = one * np.exp(shift * rng.standard_normal(count))
        truth = float(spearmanr(one, other).statistic)
        looks = [ranking(t * (1 + error * rng.standard_normal(count)), error * t) for t in (one, other)]
        found = hessrank.compare(*looks).spearman
        missed += not found.low - 1e-12 <= truth <= found.high + 1e-12
    assert missed <= 11


def test_the_interval_of_the_correlation_widens_with_the_errors() -> None:
    rng = np.random.default_rng(1)
    truth = np.sort(rng.lognormal(0, 1, 30))[::-1]
    widths = []
    for error in (0.01, 0.3):
        one = ranking(truth, error * truth)
        found = hessrank.compare(one, one).spearman
        assert found.low <= found.value <= found.high
        widths.append(found.high - found.low)
    assert widths[0] < 0.01 < widths[1]


def test_layers_of_one_ranking_only_are_named() -> None:
    found = hessrank.compare(ranking(TRUTH, TRUTH / 9), ranking(TRUTH[:5], TRUTH[:5] / 9))
    assert found.only_a == ["layer5"]
    assert found.notes == ["only the first ranking has layer5"]
    assert len(found) == 5


def test_nothing_in_common_is_an_error() -> None:
    with pytest.raises(ModelError, match="no layer in common"):
        hessrank.compare(ranking(TRUTH, TRUTH), ranking(TRUTH, TRUTH, list("abcdef")))


def test_an_unknown_column() -> None:
    with pytest.raises(UnknownNameError, match="nearest is 'trace'"):
        hessrank.compare(ranking(TRUTH, TRUTH), ranking(TRUTH, TRUTH), by="tracee")


@pytest.mark.slow
def test_two_seeds_of_a_real_ranking_agree(tmp_path: Any) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 30), nn.ReLU(), nn.Linear(30, 30), nn.ReLU(), nn.Linear(30, 80))
    x = torch.randn(4, 6)
    one, two = (hessrank.rank(model, x, loss="self-mse", seed=seed) for seed in (0, 1))
    found = hessrank.compare(one, two)
    assert found.moved().empty
    assert found.spearman.high == pytest.approx(1)
    assert "Spearman" in str(found)
    found.to_csv(tmp_path / "c.csv")
    assert len(pd.read_csv(tmp_path / "c.csv")) == len(found)
    assert found.plot().get_xlabel() == "trace, first ranking"
