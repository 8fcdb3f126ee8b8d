"""Choose the bits that cost least in loss within a budget.

Of size, BOPs, mean bits, or measured latency.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hessrank.bounds import check_number
from hessrank.errors import OptionError, unknown_name
from hessrank.quant.bit_choice.allocation.allocate import Allocation, BudgetError, Limit, allocate
from hessrank.quant.bit_choice.allocation.latency import latency_limit, read_latency
from hessrank.quant.bit_choice.allocation.pareto import frontier
from hessrank.quant.bit_choice.allocation.policy_cost import (
    Bits,
    PolicyCost,
    bops_limit,
    count_costs,
    decisions,
    mean_bits_limits,
    size_limit,
    ties,
)
from hessrank.quant.bit_choice.strategies.problem import BitChoice, Problem
from hessrank.quant.registries import STRATEGIES

DEFAULT_BITS = (4, 6, 8, 10)
COSTS = ("bops", "size", "mean-bits", "latency")


@dataclass(frozen=True)
class WidthProgram:
    """The integer program of a ranked network.

    What every weight and grid costs at every width.

    Attributes:
        problem: the ranked network.
        bits: the widths to choose from, ascending.
        increase: decisions × widths, predicted increase of the loss.
    """

    problem: Problem
    bits: tuple[int, ...]
    increase: NDArray[np.float64]

    @classmethod
    def of(cls, problem: Problem, bits: int | Iterable[int]) -> WidthProgram:
        """Set up the program for some widths.

        Raises:
            OptionError: the ranking holds no prediction for one of them.
        """
        widths = (bits,) if isinstance(bits, int) else tuple(sorted(set(bits)))
        predicted, placement = problem.predicted, problem.placement
        columns = [predicted.at(width) for width in widths]
        rows = [
            *(predicted.weights[name] for name in placement.weights),
            *(predicted.grids[name] for name in placement.grids),
        ]
        return cls(problem, widths, np.stack(rows)[:, columns])

    def limits(
        self,
        *,
        size_mib: float | None = None,
        bops: float | None = None,
        mean_bits: float | None = None,
        table: str | Path | None = None,
        latency: float | None = None,
    ) -> list[Limit]:
        """Return the limits that are not None.

        ``table`` is the CSV that ``latency`` is measured by.
        """
        graph, placement, bits = self.problem.graph, self.problem.placement, self.bits
        found = []
        given = {"size_mib": size_mib, "bops": bops, "mean_bits": mean_bits, "latency": latency}
        for name, most in given.items():
            if most is not None and most != math.inf:  # which leaves everything open, as a frontier does
                check_number(f"budget_{name}", most, least=0)
        if size_mib is not None:
            found.append(size_limit(graph, placement, bits, size_mib, other_parameters=self.problem.other_parameters))
        if bops is not None:
            found.append(bops_limit(graph, placement, bits, bops))
        if mean_bits is not None:
            found += mean_bits_limits(graph, placement, bits, mean_bits)
        if table is not None:
            most = math.inf if latency is None else latency
            found.append(latency_limit(read_latency(table, graph), graph, placement, bits, most))
        return found

    def solve(self, limits: Sequence[Limit], *, tolerance: float = 0.0) -> tuple[Bits, Allocation]:
        """Return the bits with the least increase within the limits, and what they cost.

        Args:
            limits: from :meth:`limits`.
            tolerance: how far above the least, relative to it, the increase may be.

        Raises:
            BudgetError: impossible; the least possible is named.
        """
        placement = self.problem.placement
        labels = [f"{width} bits" for width in self.bits]
        found = allocate(self.increase, limits, tied=ties(placement), labels=labels, tolerance=tolerance)
        return Bits.of(placement, [self.bits[option] for option in found.choice]), found


@STRATEGIES.register("budget")
def budget(
    problem: Problem,
    *,
    bits: int | Iterable[int] = DEFAULT_BITS,
    budget_size_mib: float | None = None,
    budget_bops: float | None = None,
    budget_mean_bits: float | None = None,
    latency: str | Path | None = None,
    budget_latency: float | None = None,
) -> BitChoice:
    """Choose the widths with the least total increase within all budgets.

    The increase is the predicted one, of weights and activations.

    An exact 0/1 program (HAWQ-V3, Yao et al. 2021, eq. 8, with activations too). Tensors that share a grid or
    are added to each other have the same width, and so has a weight in all its calls.

    Args:
        problem: the ranked network.
        bits: the widths to choose from.
        budget_size_mib: most MiB of the exported file.
        budget_bops: most BOPs (MACs × weight bits × activation bits) for one sample.
        budget_mean_bits: most mean bits, of the weights and of the activations, by elements.
        latency: CSV of measured latencies: ``layer, bits, latency`` or ``layer, weight_bits, act_bits, latency``.
        budget_latency: most latency, in the table's unit.

    Raises:
        BudgetError: impossible; the least possible is named.
        OptionError: no budget, one without its table, or bits that the ranking does not predict.

    Example:
        Nothing but the 0.5 of the input lies between the levels of 4 bits, so that it gets the 8 bits:

        >>> import torch
        >>> import hessrank
        >>> network = torch.nn.Sequential(torch.nn.Linear(2, 3, bias=False), torch.nn.Linear(3, 1, bias=False))
        >>> _ = [torch.nn.init.ones_(weight) for weight in network.parameters()]
        >>> ranking = hessrank.rank(network, torch.tensor([[0.0, 0.0], [0.5, 1.0]]))
        >>> policy = hessrank.make_policy(ranking, "budget", bits=(4, 8), budget_mean_bits=6)
        >>> list(policy.layers), policy.input_scheme.bits
        (['input_layer'], 8)
    """
    if (latency is None) != (budget_latency is None):
        raise OptionError("a latency budget takes both: --latency table.csv and --budget-latency X")
    program = WidthProgram.of(problem, bits)
    limits = program.limits(
        size_mib=budget_size_mib, bops=budget_bops, mean_bits=budget_mean_bits, table=latency, latency=budget_latency
    )
    if not limits:
        eight = _at_eight(problem)
        has = f"with 8 bits everywhere the network has {eight.size_mib:.3g} MiB and {eight.bops:.3g} BOPs"
        raise OptionError(f"the strategy 'budget' needs a budget, as --budget-bops; {has}")
    try:
        chosen, found = program.solve(limits)
    except BudgetError as error:
        share = 1 - _at_eight(problem).quantized_weights
        floating = f"; {100 * share:.2g} % of the weights stay in float, which counts 32 bits" if share else ""
        raise BudgetError(f"{error}{floating}") from error
    base = Counter([*chosen.weights.values(), *chosen.grids.values()]).most_common(1)[0][0]
    spent = [f"{limit.name} {found.costs[limit.name]:.4g} of {limit.most:.4g}" for limit in limits]
    why = "least total increase within the budget"
    return BitChoice(base, chosen.weights, chosen.grids, otherwise=why, notes=tuple(spent))


def pareto(
    problem: Problem,
    cost: str = "bops",
    *,
    bits: int | Iterable[int] = DEFAULT_BITS,
    latency: str | Path | None = None,
    points: int = 40,
) -> pd.DataFrame:
    """Return the least predicted increase for every budget.

    From the least possible to where more buys nothing.

    Args:
        problem: the ranked network.
        cost: ``bops``, ``size``, ``mean-bits`` (of the weights) or ``latency`` (with the table).
        bits: the widths to choose from.
        latency: CSV of measured latencies.
        points: how many budgets.

    Returns:
        one row a budget, cheapest first: the cost, ``damage``, and the bits of each weight and grid.

    Raises:
        UnknownNameError: no such cost.
        OptionError: a latency without its table, or bits that the ranking does not predict.
    """
    if cost not in COSTS:
        raise unknown_name("cost", cost, COSTS)
    if cost == "latency" and latency is None:
        raise OptionError("a frontier of latency takes --latency table.csv")
    program = WidthProgram.of(problem, bits)
    free: dict[str, float | None] = {name: math.inf if name == cost else None for name in COSTS}
    table = latency if cost == "latency" else None
    limit = program.limits(size_mib=free["size"], bops=free["bops"], mean_bits=free["mean-bits"], table=table)[0]
    return frontier(
        program.increase,
        limit,
        names=decisions(problem.placement),
        widths=program.bits,
        tied=ties(problem.placement),
        points=points,
    )


def _at_eight(problem: Problem) -> PolicyCost:
    placement = problem.placement
    eight = Bits.of(placement, [8] * len(decisions(placement)))
    return count_costs(problem.graph, placement, eight, other_parameters=problem.other_parameters)
