"""Which tensor gets which width: an integer program on plain arrays, what bits cost, the frontier."""

from hessrank.quant.bit_choice.allocation.allocate import (
    Allocation,
    BudgetError,
    Limit,
    PairCost,
    allocate,
    least_possible,
)
from hessrank.quant.bit_choice.allocation.costs import Bits, Costs, costs
from hessrank.quant.bit_choice.allocation.pareto import plot_frontier

__all__ = [
    "Allocation",
    "Bits",
    "BudgetError",
    "Costs",
    "Limit",
    "PairCost",
    "allocate",
    "costs",
    "least_possible",
    "plot_frontier",
]
