"""The Ranking: its table, its files, its pictures."""

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

from hessrank.analysis.rank import rank
from hessrank.analysis.result.plots import depth_profile, ranking_bars
from hessrank.analysis.result.ranking import Ranking
from hessrank.analysis.result.ranking_table import COLUMNS
from hessrank.errors import OutputError, UnknownNameError


@pytest.fixture(scope="module")
def ranking() -> Ranking:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.LeakyReLU(0.2), nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(32, 80))
    return rank(model, torch.randn(4, 1, 8, 8), max_probes=8)


def test_the_table_has_the_columns_of_the_format(ranking: Ranking) -> None:
    increases = [f"{kind}_increase_b{b}" for kind in ("act", "weight") for b in range(4, 17)]
    assert list(ranking.to_frame().columns) == [*COLUMNS, *increases]
    assert ranking.to_frame()["rank"].tolist() == list(range(1, 7))
    assert sorted(ranking) == ["0", "1", "2", "3", "4", "input_1"]


def test_the_table_is_in_the_order_of_the_traces(ranking: Ranking) -> None:
    frame = ranking.to_frame()
    assert (frame["trace"].diff().dropna() <= 0).all()
    assert (frame["ci_low"] <= frame["trace"]).all()
    assert (frame["rank_low"] <= frame["rank"]).all()
    assert (frame["rank"] <= frame["rank_high"]).all()
    np.testing.assert_allclose(frame["mean_trace"], frame["trace"] / frame["numel"])


def test_a_bare_read_csv_reads_it_back(ranking: Ranking, tmp_path: Path) -> None:
    ranking.to_csv(tmp_path / "r.csv")
    bare, text = pd.read_csv(tmp_path / "r.csv"), ["layer", "act_measured", "weight_measured"]  # empty where not
    pd.testing.assert_frame_equal(bare.drop(columns=text), ranking.to_frame().drop(columns=text), rtol=1e-8)
    again = Ranking.read(tmp_path / "r.csv")
    pd.testing.assert_frame_equal(again.to_frame(), ranking.to_frame(), rtol=1e-8)
    assert again.info == ranking.info
    assert again.info | {"table_sha256": again.sha256} == json.loads((tmp_path / "r.json").read_text())
    assert again.info["schema_version"] == 4
    assert {"loss", "seed", "data", "model", "estimators", "order", "versions", "warnings"} <= set(again.info)


def test_same_seed_same_bytes_another_seed_others(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(4, 9), nn.ReLU(), nn.Linear(9, 80)), torch.randn(3, 4)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        rank(model, x, loss="self-mse", seed=seed, max_probes=4).to_csv(tmp_path / f"{name}.csv")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert (tmp_path / "a.csv").read_bytes() != (tmp_path / "c.csv").read_bytes()


def test_one_layer_by_name_and_the_nearest_for_a_wrong_one(ranking: Ranking) -> None:
    assert ranking["4"]["kind"] == "Linear"
    with pytest.raises(UnknownNameError, match="no layer named 'input1'; nearest is 'input_1'"):
        ranking["input1"]


def test_another_order(ranking: Ranking) -> None:
    other = ranking.sorted_by("act_increase_b4")
    assert other.by == "act_increase_b4"
    assert (other.to_frame()["act_increase_b4"].diff().dropna() <= 0).all()
    with pytest.raises(UnknownNameError, match="nearest is 'mean_trace'"):
        ranking.sorted_by("meantrace")


def test_it_prints_and_shows_itself_in_a_notebook(ranking: Ranking) -> None:
    text, html = str(ranking), ranking._repr_html_()
    for name in ranking:
        assert name in text
        assert f"<td>{name}</td>" in html
    assert "6 layers by trace" in text
    assert "6 layers by trace" in html


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "there is no such file"), ("", "column 'rank' is missing"), ("a,b\n1,2\n", "column 'rank' is missing")],
    ids=["missing", "empty", "another table"],
)
def test_what_is_no_ranking_is_refused(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "r.csv").write_text(content)
    with pytest.raises(OutputError, match=message):
        Ranking.read(tmp_path / "r.csv")


def test_nothing_half_written_when_the_record_cannot_be(ranking: Ranking, tmp_path: Path) -> None:
    (tmp_path / "r.json").mkdir()
    with pytest.raises(OutputError, match=r"r\.json: is a folder"):
        ranking.to_csv(tmp_path / "r.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]


def test_bars_are_computed_apart_from_drawing(ranking: Ranking) -> None:
    bars = ranking_bars(ranking)
    frame = ranking.to_frame()
    np.testing.assert_array_equal(bars.values, frame["trace"])
    np.testing.assert_allclose(bars.values + bars.above, frame["ci_high"])
    assert [label.split()[0] for label in bars.labels] == list(frame["layer"])


def test_negative_and_zero_traces_are_marked_not_dropped(ranking: Ranking) -> None:
    frame = ranking.to_frame()
    frame.loc[4, ["trace", "ci_low", "ci_high"]] = [-1.0, -1.5, -0.5]
    frame.loc[5, ["trace", "ci_low", "ci_high"]] = [0.0, 0.0, 0.0]
    ax = Ranking(frame, ranking.info).plot()
    words = [text.get_text() for text in ax.texts]
    assert words == ["negative: -1.0e+00", "0"]
    assert len(ax.get_yticklabels()) == 6


def test_plots_draw_into_given_axes_and_return_them(ranking: Ranking) -> None:
    for draw in (ranking.plot, ranking.plot_depth):
        ax = Figure().add_subplot()
        assert draw(ax) is ax
        assert draw().get_xlabel()


def test_peaks_named_in_the_depth_profile_do_not_crowd(ranking: Ranking) -> None:
    profile = depth_profile(ranking, peaks=2)
    assert profile.indices.tolist() == list(range(6))
    assert profile.peaks[0][2].startswith("1. ")
    for (one, *_), (other, *_) in combinations(profile.peaks, 2):
        assert abs(one - other) > 1
