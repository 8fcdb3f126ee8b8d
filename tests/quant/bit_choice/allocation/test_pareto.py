"""The frontier against trying everything, and its picture."""

from itertools import product

import numpy as np
import pandas as pd
import pytest

from hessrank.errors import OptionError
from hessrank.quant.bit_choice.allocation.allocate import BudgetError, Limit, PairCost
from hessrank.quant.bit_choice.allocation.pareto import budgets, cost_column, frontier, plot_frontier, undominated

WIDTHS, NAMES = [2, 4, 8], ["conv.weight", "fc.weight", "x", "relu"]


def small() -> tuple[np.ndarray, Limit]:
    rng = np.random.default_rng(3)
    increase = 10 ** rng.uniform(-3, 0, (4, 1)) * 4.0 ** -np.array(WIDTHS)
    pairs = [PairCost(0, 2, 70.0 * np.outer(WIDTHS, WIDTHS)), PairCost(1, 3, 20.0 * np.outer(WIDTHS, WIDTHS))]
    return increase, Limit("BOPs", pairs=pairs)


def all_points(increase: np.ndarray, cost: Limit) -> np.ndarray:
    return np.array([(cost.value(c), increase[range(4), c].sum()) for c in product(range(3), repeat=4)])


def test_no_choice_beats_a_point_of_the_frontier() -> None:
    increase, cost = small()
    frame = frontier(increase, cost, names=NAMES, widths=WIDTHS)
    for at, value in frame[["bops", "damage"]].to_numpy():
        within = all_points(increase, cost)
        assert value <= 1.01 * within[within[:, 0] <= at, 1].min()


def test_a_frontier_runs_from_the_cheapest_to_the_least_increase_and_falls() -> None:
    increase, cost = small()
    frame = frontier(increase, cost, names=NAMES, widths=WIDTHS)
    points = all_points(increase, cost)
    assert frame["bops"].iloc[0] == points[:, 0].min()
    assert frame["damage"].iloc[-1] == pytest.approx(points[:, 1].min(), rel=1e-12)
    assert (np.diff(frame["bops"]) > 0).all()
    assert (np.diff(frame["damage"]) < 0).all()


def test_each_row_holds_the_bits_that_give_its_cost_and_increase() -> None:
    increase, cost = small()
    frame = frontier(increase, cost, names=NAMES, widths=WIDTHS, tied=[[2, 3]])
    assert list(frame.columns) == ["bops", "damage", *NAMES]
    for _, row in frame.iterrows():
        choice = [WIDTHS.index(int(row[name])) for name in NAMES]
        assert choice[2] == choice[3]
        assert (cost.value(choice), increase[range(4), choice].sum()) == (row["bops"], row["damage"])


def test_further_limits_are_kept_at_every_point() -> None:
    increase, cost = small()
    size = Limit("size", 20, np.outer([1, 2, 0, 0], WIDTHS).astype(float))
    frame = frontier(increase, cost, names=NAMES, widths=WIDTHS, limits=[size])
    assert (frame["conv.weight"] + 2 * frame["fc.weight"] <= 20).all()
    with pytest.raises(BudgetError, match="least possible is 6"):
        frontier(increase, cost, names=NAMES, widths=WIDTHS, limits=[Limit("size", 5, size.cost)])


def test_options_that_are_not_allowed_are_on_no_point() -> None:
    increase, cost = small()
    allowed = np.ones((4, 3), dtype=bool)
    allowed[0, 0] = False
    assert (frontier(increase, cost, names=NAMES, widths=WIDTHS, allowed=allowed)["conv.weight"] > 2).all()


def test_points_that_others_beat_or_equal_are_dropped() -> None:
    cost, increase = np.array([3.0, 1.0, 2.0, 1.0, 4.0]), np.array([2.0, 5.0, 5.0, 6.0, 1.0])
    assert undominated(cost, increase) == [1, 0, 4]


def test_budgets_grow_by_the_same_factor_or_step() -> None:
    assert budgets(1, 8, 4) == pytest.approx([1, 2, 4, 8])
    assert budgets(0, 3, 4) == pytest.approx([0, 1, 2, 3])
    assert budgets(5, 5, 2) == pytest.approx([5, 5])


@pytest.mark.parametrize(
    ("limit", "column"),
    [
        (Limit("size", unit="MiB"), "size_mib"),
        (Limit("mean weight bits"), "mean_weight_bits"),
        (Limit("BOPs"), "bops"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_cost_gives_its_column_a_name(limit: Limit, column: str) -> None:
    assert cost_column(limit) == column


def test_a_frontier_of_one_point_or_wrong_shape_is_refused() -> None:
    increase, cost = small()
    with pytest.raises(OptionError, match="2 points or more"):
        frontier(increase, cost, names=NAMES, widths=WIDTHS, points=1)
    with pytest.raises(OptionError, match=r"shape \(3, 3\)"):
        frontier(increase, cost, names=NAMES[:3], widths=WIDTHS)


def test_the_picture_shows_the_frontier_and_other_policies() -> None:
    frame = pd.DataFrame({"size_mib": [1.0, 2.0, 3.0], "damage": [1e-2, 1e-4, 0.0]})
    ax = plot_frontier(frame, marks={"8 bits": (2.5, 1e-3)})
    line, mark = ax.get_lines()
    assert line.get_xydata().tolist() == [[1.0, 1e-2], [2.0, 1e-4]]
    assert mark.get_xydata().tolist() == [[2.5, 1e-3]]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["least for every budget", "8 bits"]
    assert (ax.get_yscale(), ax.get_xlabel()) == ("log", "size of the ONNX file, MiB")
    assert plot_frontier(frame, ax) is ax


def test_bops_are_drawn_in_billions() -> None:
    ax = plot_frontier(pd.DataFrame({"bops": [1e9, 2.5e9], "damage": [2.0, 1.0]}), marks={"8 bits": (2e9, 1.5)})
    line, mark = ax.get_lines()
    assert ax.get_xlabel() == "GBOPs for one sample"
    assert (list(line.get_xdata()), list(mark.get_xdata())) == ([1.0, 2.5], [2.0])
