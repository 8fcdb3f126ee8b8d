"""Names that have changed: the old ones still work, and say what they are called now."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
from helpers.hand_graphs import RESIDUAL, ranking_of

from hessrank.quant.bit_choice.allocation import allocate
from hessrank.quant.bit_choice.allocation.allocate import Limit
from hessrank.quant.bit_choice.allocation.pareto import frontier
from hessrank.quant.bit_choice.strategies import Problem

OLD = {
    "analysis.estimators:Choice": "EstimatorChoice",
    "analysis.estimators:Stretch": "Segment",
    "analysis.estimators:plan": "choose_estimators",
    "quant.bit_choice.strategies:Choice": "BitChoice",
    "quant.bit_choice.strategies.problem:Choice": "BitChoice",
    "quant.bit_choice.allocation:Costs": "PolicyCost",
    "quant.bit_choice.allocation:costs": "count_costs",
    "quant.bit_choice.allocation.policy_cost:Costs": "PolicyCost",
    "quant.bit_choice.allocation.policy_cost:costs": "count_costs",
    "quant.bit_choice.summary:Summary": "PolicySummary",
    "quant.layer_graph.quantizer_placement:Points": "QuantizerPlacement",
    "quant.layer_graph.quantizer_placement:quantization_points": "place_quantizers",
    "quant.policy:policy_points": "place_policy_quantizers",
}


@pytest.mark.parametrize(("old", "new"), OLD.items())
def test_an_old_name_is_the_new_one_with_a_warning(old: str, new: str) -> None:
    place, _, name = old.partition(":")
    module = importlib.import_module(f"hessrank.{place}")
    with pytest.warns(DeprecationWarning, match=f"{name} is {new} now; the old name goes in release 0.8"):
        assert getattr(module, name) is getattr(module, new)
    with pytest.raises(AttributeError, match="has no attribute 'no_such_name'"):
        module.no_such_name  # noqa: B018


def test_old_arguments_and_fields_work_with_a_warning() -> None:
    increase = np.array([[2.0, 1.0]])
    with pytest.warns(DeprecationWarning, match="allocate's argument damage is increase now"):
        found = allocate(damage=increase)
    with pytest.warns(DeprecationWarning, match="Allocation.damage is increase now"):
        assert found.damage == found.increase == 1.0
    size = Limit("size", cost=np.array([[1.0, 2.0]]))
    with pytest.warns(DeprecationWarning, match="frontier's argument damage"):
        frontier(damage=increase, cost=size, names=["a"], widths=[4, 8])
    problem = Problem.of(ranking_of(RESIDUAL, {}))
    with pytest.warns(DeprecationWarning, match="Problem.points is placement now"):
        assert problem.points is problem.placement
