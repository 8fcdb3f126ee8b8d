"""Pictures of a ranking: how much is drawn, in which colors, with which names."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from helpers.hand_graphs import TWO_STAGES, graph, ranking_of
from matplotlib.colors import to_hex, to_rgb

from hessrank.analysis.result.plots import TOP, depth_profile, plot_depth, plot_ranking, ranking_bars
from hessrank.analysis.result.ranking import Ranking
from hessrank.drawing.layer_families import FAMILY_COLORS


def chain(count: int) -> Ranking:
    """Return a ranking of a chain of layers with numbers as names, as in nn.Sequential."""
    kinds = ["Conv2d", "ReLU", "LayerNorm", "add", "MaxPool2d", "matmul", "MyGate", "GELU"]
    lines = ["x input", *(f"{i} {kinds[i % 8]} {i - 1 if i else 'x'}" for i in range(count - 1))]
    made = graph("\n".join(lines), str(count - 2))
    return ranking_of(made, {name: 2.0 ** -(i % 37) for i, name in enumerate(made.nodes)})


@pytest.mark.parametrize(("count", "top", "drawn"), [(20, TOP, 20), (150, TOP, 40), (150, None, 150), (150, 7, 7)])
def test_so_many_layers_are_drawn(count: int, top: int | None, drawn: int) -> None:
    ax = chain(count).plot(top=top)
    assert len(ax.get_yticklabels()) == drawn
    assert ax.get_legend().get_title().get_text() == f"{drawn} of {count} layers, most sensitive first"


def test_forty_are_drawn_if_nothing_is_said() -> None:
    assert len(chain(150).plot().get_yticklabels()) == TOP == 40


def test_layer_and_rank_stand_apart() -> None:
    ax = plot_ranking(chain(9))
    (ranks,) = ax.child_axes
    assert [label.get_text() for label in ax.get_yticklabels()][:3] == ["x", "0", "1"]
    assert [label.get_text() for label in ranks.get_yticklabels()][:3] == ["1", "2", "3"]
    assert (ax.get_ylabel(), ranks.get_ylabel()) == ("layer", "rank")


def test_a_kind_has_the_same_color_whatever_else_is_there() -> None:
    long, short = ranking_bars(chain(150)), ranking_bars(chain(3))
    assert {kind: long.colors[kind] for kind in short.colors} == short.colors
    assert long.colors["Conv2d"] == FAMILY_COLORS["convolution"]
    assert long.colors["MyGate"] == FAMILY_COLORS["other"]
    bars = plot_ranking(chain(3)).containers[0]
    assert to_hex(bars[1].get_facecolor()).upper() == FAMILY_COLORS["convolution"]


def lightness(color: str) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]
    luminance = float(np.dot(linear, [0.2126, 0.7152, 0.0722]))
    return 116 * luminance ** (1 / 3) - 16 if luminance > 0.008856 else 903.3 * luminance


def test_colors_are_told_apart_in_gray() -> None:
    """By CIE lightness; 10 of 100 is about five just noticeable steps."""
    for one, other in combinations(FAMILY_COLORS.values(), 2):
        assert abs(lightness(one) - lightness(other)) > 10, (one, other)


@pytest.mark.parametrize("top", [20, None])
def test_the_legend_is_in_sight_and_covers_no_bar(top: int | None) -> None:
    ax = plot_ranking(chain(150), top=top)
    ax.figure.draw_without_rendering()
    legend, axes = ax.get_legend().get_window_extent(), ax.get_window_extent()
    assert legend.y0 >= axes.y1
    assert legend.y1 - axes.y1 < 1.2 * ax.figure.dpi
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert {"Conv2d", "MyGate", "input"} <= set(names)
    if top is None:
        assert all(not legend.overlaps(label.get_window_extent()) for label in ax.get_xticklabels())


def test_what_it_is_sorted_by_is_drawn() -> None:
    ranking = ranking_of(TWO_STAGES, {"A.act": 1.0, "A.last": 0.5}).sorted_by("act_increase_b6")
    assert ranking_bars(ranking, 2).values.tolist() == [1 / 16, 1 / 32]
    assert plot_ranking(ranking).get_xlabel() == "predicted increase of the loss 'self' with the activation at 6 bits"
    assert depth_profile(ranking).values.max() == 1 / 16
    assert "6 bits" in plot_depth(ranking).get_ylabel()


def test_depth_has_the_brackets_of_the_sub_networks() -> None:
    ranking = ranking_of(TWO_STAGES, {"A.act": 1.0, "A.last": 0.5})
    place = {name: index for index, name in enumerate(TWO_STAGES.nodes)}
    expected = (("A", place["A.first"], place["A.last"]), ("B", place["down"], place["B.last"]))
    assert depth_profile(ranking).parts == expected
    assert {"A", "B"} <= {text.get_text() for text in plot_depth(ranking).texts}


def test_a_ranking_without_its_graph_is_drawn_without_brackets() -> None:
    ranking = ranking_of(TWO_STAGES, {"A.act": 1.0})
    bare = Ranking(ranking.to_frame(), {})
    assert depth_profile(bare).parts == ()
    assert plot_depth(bare).get_xlabel() == "order of execution"


def test_nothing_but_zeros_is_drawn() -> None:
    for draw in (plot_ranking, plot_depth):
        draw(ranking_of(TWO_STAGES, {})).figure.draw_without_rendering()


@pytest.mark.parametrize("span", [1.5, 20.0, 1e4])
def test_numbers_on_the_axis_do_not_overlap(span: float) -> None:
    names = list(TWO_STAGES.nodes)
    ax = plot_ranking(ranking_of(TWO_STAGES, {name: span ** (-i / len(names)) for i, name in enumerate(names)}))
    ax.figure.draw_without_rendering()
    low, high = ax.get_xlim()
    shown = [
        label.get_window_extent()
        for which in ("major", "minor")
        for at, label in zip(ax.get_xticks(minor=which == "minor"), ax.get_xticklabels(which=which), strict=True)
        if label.get_text() and low <= at <= high
    ]
    assert shown
    for one, other in combinations(shown, 2):
        assert not one.overlaps(other)
