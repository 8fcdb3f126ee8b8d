"""Choose a width for every tensor.

An integer program on plain arrays, what bits cost, and the frontier.
"""

from typing import TYPE_CHECKING

from hessrank.quant.bit_choice.allocation.allocate import (
    Allocation,
    BudgetError,
    Limit,
    PairCost,
    allocate,
    least_possible,
)
from hessrank.quant.bit_choice.allocation.pareto import plot_frontier
from hessrank.quant.bit_choice.allocation.policy_cost import Bits, PolicyCost, count_costs
from hessrank.renamed import renamed_names

__all__ = [
    "Allocation",
    "Bits",
    "BudgetError",
    "Limit",
    "PairCost",
    "PolicyCost",
    "allocate",
    "count_costs",
    "least_possible",
    "plot_frontier",
]

if not TYPE_CHECKING:  # to which every name would then be known
    __getattr__ = renamed_names(__name__, globals(), Costs="PolicyCost", costs="count_costs")
