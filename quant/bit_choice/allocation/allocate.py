"""Choose an option for each decision: least total increase, no limit passed.

A decision is the width of one tensor, an option one of the widths; but the allocator knows only arrays. It minimizes
Σ increase[i, option of i] under limits on sums of costs, as HAWQ-V3 does (Yao et al., "HAWQ-V3: Dyadic Neural Network
Quantization", ICML 2021, eq. 8), with costs of *pairs* of decisions too: BOPs are MACs × weight bits × activation
bits. The result is exact; HiGHS (through SciPy) does the search.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hessrank.errors import OptionError
from hessrank.quant.bit_choice.allocation.core import improve, minimize
from hessrank.quant.bit_choice.allocation.program import Bools, Cost, Floats, Ints, Program
from hessrank.renamed import renamed_arguments, warn_renamed


class BudgetError(OptionError):
    """A limit that no choice keeps; the message says the least possible."""


@dataclass(frozen=True)
class PairCost:
    """A cost that two decisions have together.

    Attributes:
        first: number of a decision.
        second: number of a decision, which may be the same.
        table: options of the first × options of the second; where it is not finite, the two do not go together.
    """

    first: int
    second: int
    table: NDArray[np.float64]


@dataclass(frozen=True)
class Limit:
    """The most that a sum of costs may be: up to 1e-9 of it, the rounding of sums.

    Attributes:
        name: what is limited ("size").
        most: the limit; inf for none.
        cost: decisions × options; None for nothing but pairs.
        pairs: costs of pairs of decisions.
        constant: what is spent whatever is chosen.
        unit: of all these ("MiB").
    """

    name: str
    most: float = math.inf
    cost: NDArray[np.float64] | None = None
    pairs: Sequence[PairCost] = ()
    constant: float = 0.0
    unit: str = ""

    def value(self, choice: ArrayLike) -> float:
        """Return what a choice (an option for each decision) costs."""
        chosen = np.asarray(choice, dtype=np.intp)
        own = 0.0 if self.cost is None else float(self.cost[np.arange(len(chosen)), chosen].sum())
        return self.constant + own + math.fsum(p.table[chosen[p.first], chosen[p.second]] for p in self.pairs)

    @property
    def room(self) -> float:
        """What is left for the choice.

        Not more than the choice can use, because the solver knows no numbers far beyond.
        """
        tables = [p.table for p in self.pairs] if self.cost is None else [*self.cost, *(p.table for p in self.pairs)]
        largest = math.fsum(float(np.max(t, where=np.isfinite(t), initial=0.0)) for t in tables)
        return min(self.most - self.constant, 2 * largest)


@dataclass(frozen=True)
class Allocation:
    """What the allocator found.

    Attributes:
        choice: the option of each decision, shape (decisions,).
        increase: their total increase.
        costs: what each limit counts, by its name.
    """

    choice: NDArray[np.intp]
    increase: float
    costs: dict[str, float]

    @property
    def damage(self) -> float:
        """The old name of ``increase``."""
        warn_renamed("Allocation.damage", "increase")
        return self.increase


@renamed_arguments(damage="increase")
def allocate(
    increase: ArrayLike,
    limits: Sequence[Limit] = (),
    *,
    tied: Sequence[Sequence[int]] = (),
    allowed: ArrayLike | None = None,
    labels: Sequence[str] = (),
    tolerance: float = 0.0,
) -> Allocation:
    """Choose an option for each decision: least total increase within all limits.

    Of several best choices the same one is always returned. No decision of it (or tied group) can be moved to less
    increase, or to an earlier option of the same increase, within the limits: let the cheapest option come first.

    Args:
        increase: decisions × options; NaN or infinite where a decision does not have that option.
        limits: at most how much the choice may cost.
        tied: groups of decisions that take the same option.
        allowed: decisions × options, False where an option must not be taken; None allows all.
        labels: what the options are called in error messages ("4 bits").
        tolerance: how far above the least, relative to it, the increase may be; 0.001 takes a fraction of the time
            for hundreds of decisions in pairs.

    Raises:
        BudgetError: no choice keeps the limits; the least possible is named.
        OptionError: arrays of the wrong shape, a tied group without a common option.

    Example:
        Two tensors of 4 or 8 bits, 12 bits for both: the one that loses more at 4 bits gets the 8.

        >>> import numpy as np
        >>> from hessrank.quant.bit_choice.allocation import Limit, allocate
        >>> bits = np.array([[4.0, 8.0], [4.0, 8.0]])
        >>> found = allocate([[5.0, 1.0], [3.0, 2.0]], [Limit("bits", most=12, cost=bits)])
        >>> found.choice.tolist(), found.increase, found.costs
        ([1, 0], 4.0, {'bits': 12.0})
    """
    total = np.asarray(increase, dtype=np.float64)
    usable = _usable(total, allowed, limits)
    groups = _Groups(len(total), tied)
    program = groups.program(Limit("increase", cost=total), limits, usable)
    found = minimize(program, tolerance)
    if found is None:
        found = _at_the_edge(groups, limits, usable, program)
    if found is None:
        raise _explanation(groups, limits, usable, labels)
    choice = improve(program, found)[groups.of]
    spent = {limit.name: limit.value(choice) for limit in limits}
    return Allocation(choice, float(total[np.arange(len(total)), choice].sum()), spent)


def least_possible(
    cost: Limit, allowed: ArrayLike, limits: Sequence[Limit] = (), *, tied: Sequence[Sequence[int]] = ()
) -> NDArray[np.intp] | None:
    """Return a choice that costs least, or None where none keeps the limits.

    Args:
        cost: what to minimize; its ``most`` does not matter.
        allowed: decisions × options, False where an option must not be taken.
        limits: what must be kept.
        tied: groups of decisions that take the same option.
    """
    usable = np.asarray(allowed, dtype=np.bool_)
    groups = _Groups(len(usable), tied)
    found = minimize(groups.program(cost, limits, usable))
    return None if found is None else found[groups.of]


def _usable(increase: Floats, allowed: ArrayLike | None, limits: Sequence[Limit]) -> Bools:
    if increase.ndim != 2 or not increase.size:
        raise OptionError(f"increase must be decisions × options, not of shape {increase.shape}")
    usable: Bools = np.isfinite(increase)
    shapes = [(f"the cost of {limit.name}", limit.cost) for limit in limits if limit.cost is not None]
    shapes += [] if allowed is None else [("allowed", np.asarray(allowed))]
    for what, array in shapes:
        if array.shape != increase.shape:
            raise OptionError(f"{what} has shape {array.shape}, the increase {increase.shape}")
    for limit in limits:
        if math.isnan(limit.most):
            raise OptionError(f"the limit of {limit.name} is not a number")
        usable = usable & (np.isfinite(limit.cost) if limit.cost is not None else True)
    return usable if allowed is None else usable & np.asarray(allowed, dtype=np.bool_)


class _Groups:
    """Decisions that take one option together, as one group of the program.

    Attributes:
        of: the group of each decision.
    """

    def __init__(self, decisions: int, tied: Sequence[Sequence[int]]) -> None:
        root = np.arange(decisions)
        for group in tied:
            if any(not 0 <= member < decisions for member in group):
                raise OptionError(f"tied decisions {list(group)}: they are numbered from 0 to {decisions - 1}")
            joined = np.isin(root, root[list(group)])
            root[joined] = root[joined].min(initial=decisions)
        self.first, self.of = np.unique(root, return_inverse=True)

    def program(self, objective: Limit, limits: Sequence[Limit], usable: Bools) -> Program:
        available = np.ones((len(self.first), usable.shape[1]), dtype=np.bool_)
        np.logical_and.at(available, self.of, usable)
        for group in np.flatnonzero(~available.any(axis=1)):
            members = ", ".join(str(member) for member in np.flatnonzero(self.of == group))
            raise OptionError(f"no option is available for decision {members}" + " together" * ("," in members))
        binding = [limit for limit in limits if limit.most != math.inf]
        return Program(
            self._cost(objective, usable),
            [self._cost(limit, usable) for limit in binding],
            [limit.room for limit in binding],
            available,
        )

    def _cost(self, limit: Limit, usable: Bools) -> Cost:
        """Return a limit's costs group by group."""
        linear = np.zeros((len(self.first), usable.shape[1]))
        if limit.cost is not None:
            np.add.at(linear, self.of, np.where(usable, limit.cost, 0.0))
        tables: dict[tuple[int, int], Floats] = {}
        for pair in limit.pairs:
            g, h, table = (
                int(self.of[pair.first]),
                int(self.of[pair.second]),
                np.asarray(pair.table, dtype=np.float64),
            )
            if g == h:
                linear[g] += np.diagonal(table)
            else:
                key = (min(g, h), max(g, h))
                tables[key] = tables.get(key, 0.0) + (table if g < h else table.T)
        return Cost(linear, tables)


def _at_the_edge(groups: _Groups, limits: Sequence[Limit], usable: Bools, program: Program) -> Ints | None:
    """Return the cheapest choice by one of the limits, if it keeps them all.

    A limit that is exactly the least possible leaves the solver no room for its own tolerances.
    """
    for place, limit in enumerate(limits):
        least = minimize(groups.program(limit, [*limits[:place], *limits[place + 1 :]], usable))
        if least is not None and program.within(least):
            return least
    return None


def _explanation(groups: _Groups, limits: Sequence[Limit], usable: Bools, labels: Sequence[str]) -> BudgetError:
    """Find the first limit that cannot be kept together with those before it."""
    for place, limit in enumerate(limits):
        least = minimize(groups.program(limit, limits[:place], usable))
        if least is None:
            break
        value = limit.value(least[groups.of])
        if value > limit.most:
            return BudgetError(_impossible(limit, value, least, limits[:place], labels))
    return BudgetError("no combination of options is available for all decisions")


def _impossible(limit: Limit, value: float, least: Ints, kept: Sequence[Limit], labels: Sequence[str]) -> str:
    """Say that a limit cannot be kept, and what the least possible is.

    That is rounded up, so that it can be given as a limit.
    """
    unit = f" {limit.unit}" * bool(limit.unit)
    besides = " and ".join(f"{other.name} at most {other.most:.4g} {other.unit}".rstrip() for other in kept)
    same = f" (all at {labels[least[0]]})" if labels and (least == least[0]).all() else ""
    digit = 10.0 ** (math.floor(math.log10(abs(value))) - 3) if value else 1.0  # the fourth
    possible = math.ceil(value / digit - 1e-9) * digit
    told = f"{limit.name} {limit.most:.4g}{unit} is impossible" + f" with {besides}" * bool(besides)
    return f"{told}: the least possible is {possible:.4g}{unit}{same}"
