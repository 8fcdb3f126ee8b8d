"""What the pictures of a policy show."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from helpers.hand_graphs import BITS, RESIDUAL, TWO_STAGES, U_NET, graph, ranking_of
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from hessrank.analysis.result.ranking import Ranking
from hessrank.errors import OptionError, UnknownNameError
from hessrank.quant.bit_choice.make_policy import make_policy
from hessrank.quant.layer_graph.graph import Graph
from hessrank.quant.plots import BitMap, bit_map, increase_map, plot_bits, plot_increase, spread, with_room
from hessrank.quant.policy import Policy, PolicyError

INCREASES = dict.fromkeys(TWO_STAGES.nodes, 1e-9) | {"A.act": 1.0, "A.last": 0.5, "B.left": 1.0, "B.last": 0.8}
NAMED = {"A.first": {"weight": 6}, "A.act": {"activation": 10}, "B.last": {"weight": 10}}


def policy_of(layers: dict[str, object], *, base: int = 4, **rest: object) -> Policy:
    qconfig = {key: {"bit": base} for key in ("w_qscheme", "a_qscheme")}
    return Policy.of({"extra_qconfig_dict": qconfig, "extra_quantizer_dict": {"special_layer": layers, **rest}})


def drawn(layers: dict[str, object], made: Graph = TWO_STAGES, **rest: object) -> tuple[BitMap, dict[str, int]]:
    place = {name: index for index, name in enumerate(made.nodes)}
    return bit_map(policy_of(layers, **rest), ranking_of(made, INCREASES)), place


def series(ax: Axes, label: str) -> list[tuple[float, float]]:
    (line,) = [line for line in ax.get_lines() if line.get_label() == label]
    return [(float(x), float(y)) for x, y in line.get_xydata()]


def long_ranking(stages: int) -> Ranking:
    """Return a ranking of a chain of convolutions, each with its activation."""
    lines = ["x input", "block.conv0 Conv2d*w0 x"]
    for i in range(1, stages):
        lines += [f"block.act{i} ReLU block.conv{i - 1}", f"block.conv{i} Conv2d*w{i} block.act{i}"]
    return ranking_of(graph("\n".join(lines), f"block.conv{stages - 1}"), {f"block.act{i}": i for i in range(stages)})


def test_every_weight_and_quantizer_has_its_mark() -> None:
    found, place = drawn(NAMED)
    weights = {"A.first": 6, "A.mid": 4, "A.last": 4, "B.left": 4, "B.right": 4, "B.mid": 4, "B.last": 10}
    assert dict(found.weights) == {place[name]: bits for name, bits in weights.items()}
    quantized = {
        "raw": 4,
        "A.act": 10,
        "A.act_dup1": 4,
        "A.last": 4,
        "B.left": 4,
        "B.right": 4,
        "B.act": 4,
        "B.last": 4,
    }
    assert dict(found.activations) == {place[name]: bits for name, bits in quantized.items()}
    assert (found.widths, found.floats, found.count) == ((4, 6, 10), (), 15)


def test_a_weight_has_a_mark_for_every_call() -> None:
    made = graph("x input\na Linear*one x\nr ReLU a\nb Linear*one r", "b")
    assert drawn({"a": {"weight": 8}}, made)[0].weights == ((1, 8), (3, 8))


def test_sub_networks_reach_from_their_first_layer_to_their_last() -> None:
    found, place = drawn({})
    assert found.parts == (("A", place["A.first"], place["A.last"]), ("B", place["down"], place["B.last"]))
    assert drawn({}, U_NET)[0].parts[0][0] == "the network"


def test_kernels_with_more_bits_are_named_once_by_rank_without_their_sub_network() -> None:
    """A.first and A.act are one kernel; 10 bits come before 6, and then the more sensitive."""
    found, place = drawn(NAMED | {"A.last": {"weight": 6}})
    expected = [("A.act", 10, "1. act"), ("B.last", 10, "3. last"), ("A.last", 6, "4. last")]
    assert found.names == tuple((place[layer], bits, name) for layer, bits, name in expected)


def test_fewer_bits_than_the_default_are_not_named() -> None:
    assert drawn({"A.first": {"weight": 3}}, base=8)[0].names == ()


def test_layers_to_distill_are_marked_at_their_bits() -> None:
    ranking = ranking_of(TWO_STAGES, INCREASES)
    policy = make_policy(ranking, base_bits=4, distill="head", distill_count=1)
    assert policy.distill_config == ("A.act",)
    assert bit_map(policy, ranking).hints == ((2, 10),)


def test_what_is_excluded_stays_in_a_row_of_its_own() -> None:
    rest = {"exclude_module_name": ["B.mid"]}
    found, place = drawn({}, **rest)
    assert found.floats == (place["B.mid"],)
    assert place["B.mid"] not in dict(found.weights)
    ax = plot_bits(policy_of({}, **rest), ranking_of(TWO_STAGES, INCREASES))
    assert series(ax, "stays in float") == [(place["B.mid"], 6)]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["4", "float"]


def test_a_policy_of_another_network_is_refused() -> None:
    with pytest.raises(PolicyError, match=r"no layer named 'A\.frist'; nearest is 'A\.first'"):
        drawn({"A.frist": {"weight": 8}})


@given(st.lists(st.floats(0, 100), min_size=1, max_size=12).map(sorted), st.floats(0.1, 8))
def test_spread_places_lie_apart_in_order_and_within_bounds(places: list[float], gap: float) -> None:
    moved = spread(places, gap, 0, 100)
    assert all(b - a >= gap * (1 - 1e-6) for a, b in pairwise(moved))
    assert min(moved) >= -1e-6
    assert max(moved) <= 100 + 1e-6


@pytest.mark.parametrize(
    ("places", "moved"),
    [([1.0, 5.0, 9.0], [1, 5, 9]), ([5.0, 5.0], [4, 6]), ([4.0, 5.0, 9.0], [3.5, 5.5, 9]), ([0.0, 0.0], [0, 2])],
    ids=["room", "same", "pair", "edge"],
)
def test_places_are_moved_as_little_as_needed(places: list[float], moved: list[float]) -> None:
    assert spread(places, 2, 0, 10) == pytest.approx(moved)


def test_where_there_is_no_room_the_first_names_stay() -> None:
    """Two apart, none moved by more than three: of eight in a row all but the last given, and the lone one."""
    crowd = [(place, 10, f"{place}.") for place in (15, 16, 14, 17, 13, 18, 12, 19, 25)]
    kept = with_room(crowd, 2, 30)
    assert [name for _, (_, _, name) in kept] == ["12.", "13.", "14.", "15.", "16.", "17.", "18.", "25."]
    assert [x for x, _ in kept] == [9, 11, 13, 15, 17, 19, 21, 25]


def test_the_map_of_bits_is_drawn() -> None:
    ranking = ranking_of(TWO_STAGES, INCREASES)
    policy = make_policy(ranking, base_bits=4)
    ax, found = plot_bits(policy, ranking), bit_map(policy, ranking)
    assert series(ax, "weight") == list(found.weights)
    assert series(ax, "activation") == list(found.activations)
    assert series(ax, "to distill") == list(found.hints)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["4", "10"]
    texts = {text.get_text() for text in ax.texts}
    assert texts == {"A", "B"} | {name for _, _, name in found.names}
    assert plot_bits(policy, ranking, ax) is ax


def test_names_above_a_long_network_do_not_overlap() -> None:
    ranking = long_ranking(120)
    policy = make_policy(ranking, "threshold", above=0.0, base_bits=4, high_bits=8)
    ax = plot_bits(policy, ranking)
    ax.figure.draw_without_rendering()
    names = [text for text in ax.texts if "act" in text.get_text()]
    boxes = sorted(Text.get_window_extent(name).extents[[0, 2]].tolist() for name in names)  # without its line
    assert 20 < len(boxes) < len(bit_map(policy, ranking).names)
    assert all(left[1] <= right[0] for left, right in pairwise(boxes))


def test_overlapping_sub_networks_have_rows_of_their_own() -> None:
    made = graph(
        "x input\na.one Linear*a x\nb.one Linear*b x\na.two Linear*c a.one\nb.two Linear*d b.one", "a.two", "b.two"
    )
    ax = plot_bits(policy_of({}), ranking_of(made, {}))
    ax.figure.draw_without_rendering()
    heights = [text.get_window_extent().y0 for text in ax.texts]
    assert len({round(height) for height in heights}) == len(ax.texts) == 2


@pytest.mark.parametrize("what", ["activations", "weights"])
def test_increases_stand_in_the_order_of_execution(what: str) -> None:
    of_weights = {"conv1": 4.0, "conv2": 3.0, "up": 2.0, "out": 1.0}
    found = increase_map(ranking_of(U_NET, {"x": 5.0, "relu2": 7.0, "out": 6.0}, of_weights), what=what)  # type: ignore[arg-type]
    rows = {
        "activations": {"x": 5.0, "relu1  +1": 0.0, "relu2": 7.0, "out": 6.0},
        "weights": {"conv1": 4.0, "conv2": 3.0, "up": 2.0, "out": 1.0},
    }[what]
    assert found.labels == tuple(rows)
    assert found.bits == BITS
    assert found.values == pytest.approx(np.array([[v * 4.0 ** (4 - b) for b in BITS] for v in rows.values()]))
    assert found.chosen == (None,) * 4


def test_colors_mean_the_same_for_weights_and_activations() -> None:
    ranking = ranking_of(U_NET, {"x": 5.0, "out": 1e-30}, {"conv1": 80.0})
    scales = [(m.low, m.high) for m in (increase_map(ranking, [4, 8]), increase_map(ranking, [4, 8], what="weights"))]
    assert scales == [(pytest.approx(80e-10), 80.0)] * 2


def test_the_policys_choice_is_outlined() -> None:
    ranking = ranking_of(TWO_STAGES, INCREASES)
    policy = policy_of(NAMED | {"A.mid": {"activation": 6}})
    found = increase_map(ranking, [4, 8, 10], policy=policy)
    chosen = dict(zip(found.labels, found.chosen, strict=True))
    assert chosen == {
        "raw": 0,
        "A.act": 2,
        "A.mid": None,
        "A.act_dup1": 0,
        "A.last": 0,
        "B.left  +1": 0,
        "B.act": 0,
        "B.last": 0,
    }
    ax = plot_increase(ranking, bits=[4, 8, 10], policy=policy)
    assert [patch.get_xy() for patch in ax.patches if hasattr(patch, "get_xy")][1] == (1.5, 0.5)
    assert len(ax.patches) == len(chosen) - 1


def test_a_heat_map_has_a_row_a_tensor_and_a_scale() -> None:
    ax = plot_increase(ranking_of(RESIDUAL, {"x": 2.0, "relu": 1.0}), bits=[8, 4])
    (image,) = ax.get_images()
    values = image.get_array()
    assert values.shape == (len(ax.get_yticks()), 2)
    assert values[0].tolist() == [2.0, 2.0 * 4.0**-4]
    assert values.mask[-1].all()  # nothing to lose: white
    assert [label.get_text() for label in ax.get_xticklabels()] == ["4", "8"]
    assert [other.get_ylabel() for other in ax.figure.axes if other is not ax] == ["predicted increase of the loss"]


@pytest.mark.parametrize("stages", [4, 75])
def test_labels_of_a_heat_map_do_not_overlap(stages: int) -> None:
    ax = plot_increase(long_ranking(stages))
    ax.figure.draw_without_rendering()
    boxes = [label.get_window_extent().extents[[1, 3]].tolist() for label in ax.get_yticklabels()]
    assert len(boxes) == stages + 1
    assert all(lower[1] <= upper[0] + 1 for upper, lower in pairwise(boxes))


def test_axes_of_ones_own_are_drawn_on() -> None:
    left, right = Figure().subplots(1, 2)
    ranking = ranking_of(U_NET, {"x": 1.0})
    assert plot_increase(ranking, left) is left
    assert plot_increase(ranking, right, what="weights") is right


def test_a_network_with_nothing_to_lose_is_drawn_white() -> None:
    ax = plot_increase(ranking_of(U_NET, {}))
    ax.figure.draw_without_rendering()
    assert ax.get_images()[0].get_array().mask.all()


def test_what_cannot_be_drawn_is_said() -> None:
    ranking = ranking_of(U_NET, {})
    with pytest.raises(OptionError, match="predicts nothing for 5 bits"):
        increase_map(ranking, [4, 5])
    with pytest.raises(OptionError, match="one bit-width or more"):
        increase_map(ranking, [])
    with pytest.raises(UnknownNameError, match="no sort of tensor named 'weight'; nearest is 'weights'"):
        increase_map(ranking, what="weight")  # type: ignore[arg-type]
    with pytest.raises(PolicyError, match="no layer named"):
        increase_map(ranking, policy=policy_of(NAMED))
