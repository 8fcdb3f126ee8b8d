"""The controls: the same bits everywhere, and many bits in the middle."""

from __future__ import annotations

from dataclasses import replace

import pytest
from helpers.hand_graphs import U_NET, ranking_of

from hessrank.errors import OptionError
from hessrank.quant.bit_choice.allocation import Bits, count_costs
from hessrank.quant.bit_choice.strategies import BitChoice, Problem
from hessrank.quant.bit_choice.strategies.controls import middle, uniform
from hessrank.quant.layer_graph.graph import Graph

WITH_MACS = Graph.of((replace(n, macs=10 if n.weight else 0) for n in U_NET.nodes.values()), U_NET.outputs)
PROBLEM = Problem.of(
    ranking_of(WITH_MACS, {"x": 1.0, "relu1": 0.1, "up": 0.5, "relu2": 4.0, "out": 2.0}, {"conv1": 9.0})
)


def bops(choice: BitChoice) -> float:
    placement = PROBLEM.placement
    return count_costs(
        PROBLEM.graph, placement, Bits(choice.all_weights(placement), choice.all_grids(placement))
    ).bops


def test_uniform_is_uniform() -> None:
    choice = uniform(PROBLEM, base_bits=4)
    assert set(choice.all_weights(PROBLEM.placement).values()) == {4}
    assert set(choice.all_grids(PROBLEM.placement).values()) == {4}


def test_the_middle_grows_with_its_budget_and_never_exceeds_it() -> None:
    least = bops(uniform(PROBLEM, base_bits=4))
    most = bops(uniform(PROBLEM, base_bits=10))
    raised = []
    for share in (0.0, 0.3, 0.6, 1.0):
        budget = least + share * (most - least)
        choice = middle(PROBLEM, base_bits=4, budget_bops=budget)
        assert bops(choice) <= budget
        raised.append(len(choice.weights))
    assert raised == sorted(raised)
    assert raised[0] == 0
    assert raised[-1] == len(PROBLEM.placement.weights)


def test_a_budget_is_needed_and_has_to_suffice() -> None:
    with pytest.raises(OptionError, match="needs --budget-bops"):
        middle(PROBLEM)
    with pytest.raises(OptionError, match="4 bits everywhere take"):
        middle(PROBLEM, base_bits=4, budget_bops=1.0)
