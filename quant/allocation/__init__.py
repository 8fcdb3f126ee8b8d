"""Which tensor gets which width: an integer program on plain arrays, what bits cost, the frontier."""

from hessrank.quant.allocation.allocate import Allocation, BudgetError, Limit, PairCost, allocate, least_possible
from hessrank.quant.allocation.costs import Bits, Costs, costs
from hessrank.quant.allocation.pareto import plot_frontier

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
