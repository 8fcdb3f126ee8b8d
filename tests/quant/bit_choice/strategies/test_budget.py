"""The budget strategy: against every assignment there is, on networks small enough to try them all."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.hand_graphs import RESIDUAL, U_NET, ranking_of

from hessrank import make_policy
from hessrank.errors import OptionError, UnknownNameError
from hessrank.quant.bit_choice.allocation import Bits, BudgetError, count_costs
from hessrank.quant.bit_choice.strategies import Problem
from hessrank.quant.bit_choice.strategies.budget import budget, pareto
from hessrank.quant.layer_graph.graph import Graph

WIDTHS = (4, 8)


def problem(made: Graph, seed: int = 0) -> Problem:
    """Give every layer random MACs, sizes and increases."""
    rng = np.random.default_rng(seed)
    nodes = [
        replace(node, macs=int(rng.integers(1, 99)) if node.weight else 0, numel=int(rng.integers(1, 50)))
        for node in made.nodes.values()
    ]
    made = Graph.of(nodes, made.outputs)
    draw = {name: float(rng.exponential()) for name in made.nodes}
    return Problem.of(ranking_of(made, draw, {name: value / 3 for name, value in draw.items()}))


def all_choices(given: Problem) -> list[Bits]:
    """Return every assignment of widths that keeps the ties."""
    placement = given.placement
    names = [*placement.weights, *placement.grids]
    found = (dict(zip(names, widths, strict=True)) for widths in product(WIDTHS, repeat=len(names)))
    tied = (each for each in found if all(len({each[grid] for grid in group}) == 1 for group in placement.tied))
    return [Bits({n: b[n] for n in placement.weights}, {n: b[n] for n in placement.grids}) for b in tied]


@pytest.mark.parametrize("made", [U_NET, RESIDUAL], ids=["u-net", "residual"])
@pytest.mark.parametrize(("option", "field"), [("budget_bops", "bops"), ("budget_size_mib", "size_mib")])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_no_other_assignment_within_the_budget_is_better(made: Graph, option: str, field: str, share: float) -> None:
    given = problem(made)
    every = all_choices(given)
    spent = [getattr(count_costs(given.graph, given.placement, b), field) for b in every]
    most = min(spent) + share * (max(spent) - min(spent))
    affordable = [b for b, cost in zip(every, spent, strict=True) if cost <= most]
    best = min(given.predicted.total(b.weights, b.grids) for b in affordable)
    choice = budget(given, bits=WIDTHS, **{option: most})  # type: ignore[arg-type]
    found = Bits(choice.all_weights(given.placement), choice.all_grids(given.placement))
    assert getattr(count_costs(given.graph, given.placement, found), field) <= most * (1 + 1e-9)
    assert given.predicted.total(found.weights, found.grids) == pytest.approx(best, rel=1e-9)


def test_the_policy_says_what_was_spent() -> None:
    header = str(make_policy(problem(U_NET).ranking, "budget", bits=WIDTHS, budget_size_mib=0.001)).splitlines()[0]
    assert re.search(r"strategy budget · size [0-9.e-]+ of 0\.001$", header)


def test_mean_bits_hold_for_weights_and_for_activations() -> None:
    given = problem(U_NET)
    choice = budget(given, bits=WIDTHS, budget_mean_bits=6)
    found = count_costs(
        given.graph, given.placement, Bits(choice.all_weights(given.placement), choice.all_grids(given.placement))
    )
    assert found.mean_weight_bits <= 6
    assert found.mean_act_bits <= 6


def test_a_table_of_latencies_is_a_budget(tmp_path: Path) -> None:
    """Only conv1 becomes slower with 8 bits; there is time for everything but that."""
    rows = [f"{name},{b},{5 if (name, b) == ('conv1', 8) else 1}" for name in U_NET.nodes for b in WIDTHS]
    rows = [row for row in rows if row.split(",")[0] in ("conv1", "conv2", "up", "out")]
    table = tmp_path / "latency.csv"
    table.write_text("layer,bits,latency\n" + "\n".join(rows) + "\n")
    given = problem(U_NET)
    choice = budget(given, bits=WIDTHS, latency=table, budget_latency=4)
    weights, grids = choice.all_weights(given.placement), choice.all_grids(given.placement)
    assert (weights["conv1.weight"], grids["x"]) == (4, 4)
    assert {*weights.values(), *grids.values()} == {4, 8}


def test_tensors_that_are_added_have_the_same_bits() -> None:
    given = problem(RESIDUAL)
    for share in (0.3, 0.5, 0.7):
        low, high = (
            count_costs(given.graph, given.placement, Bits.of(given.placement, [b] * 9)).bops for b in WIDTHS
        )
        grids = budget(given, bits=WIDTHS, budget_bops=low + share * (high - low)).all_grids(given.placement)
        assert grids["relu"] == grids["bn2"]


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({}, OptionError, "needs a budget, as --budget-bops; with 8 bits everywhere the network has .* BOPs"),
        ({"budget_bops": 1.0}, BudgetError, "BOPs 1 is impossible: the least possible is"),
        ({"budget_latency": 1.0}, OptionError, "takes both: --latency table.csv and --budget-latency"),
        ({"budget_bops": 1e9, "bits": (3, 4)}, OptionError, "nothing for 3 bits"),
    ],
    ids=["none", "impossible", "no-table", "not-ranked"],
)
def test_what_cannot_be_done_is_said(options: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        budget(problem(U_NET), **options)


def test_the_frontier_falls_from_the_cheapest_to_the_best() -> None:
    given = problem(U_NET)
    frame = pareto(given, "bops", bits=WIDTHS, points=8)
    names = [*given.placement.weights, *given.placement.grids]
    assert list(frame.columns) == ["bops", "damage", *names]
    assert frame["bops"].is_monotonic_increasing
    assert frame["damage"].is_monotonic_decreasing
    for _, row in frame.iterrows():
        bits = Bits.of(given.placement, [int(row[name]) for name in names])
        assert count_costs(given.graph, given.placement, bits).bops == pytest.approx(row["bops"])
        assert given.predicted.total(bits.weights, bits.grids) == pytest.approx(row["damage"])


def test_a_frontier_of_something_else_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="nearest is 'bops'"):
        pareto(problem(U_NET), "bobs")
    with pytest.raises(OptionError, match=r"takes --latency table\.csv"):
        pareto(problem(U_NET), "latency")
