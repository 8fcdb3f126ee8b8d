"""Choose a width for every tensor.

An integer program on plain arrays, what bits cost, and the frontier.
"""

from hessrank.quant.bit_choice.allocation.allocate import (
    Allocation,
    BudgetError,
    Limit,
    PairCost,
    allocate,
    least_possible,
)
from hessrank.quant.bit_choice.allocation.costs import Bits, PolicyCost, costs
from hessrank.quant.bit_choice.allocation.pareto import plot_frontier
from hessrank.renamed import renamed_names

__all__ = [
    "Allocation",
    "Bits",
    "BudgetError",
    "Limit",
    "PairCost",
    "PolicyCost",
    "allocate",
    "costs",
    "least_possible",
    "plot_frontier",
]

__getattr__ = renamed_names(__name__, globals(), Costs="PolicyCost")
