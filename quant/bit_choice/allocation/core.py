"""Solve an allocation's integer program exactly, on a core of its columns.

Any prices u of the rows of min c·x, Ax = b, 0 ≤ x ≤ h bound the optimum from below by b·u + Σ min(0, rⱼ)hⱼ with the
reduced costs r = c − Aᵀu, whatever rounding errors the linear program made that found them (Neumaier and
Shcherbina, "Safe bounds in linear and mixed-integer linear programming", Math. Program. 99, 2004); and no solution
with xⱼ = 1 costs less than rⱼ above that bound. So once a choice is known that lies d above the bound, only the
columns with rⱼ ≤ d count. Such a choice comes from a small core, the columns with the least rⱼ (Balas and Zemel, "An
algorithm for large zero-one knapsack problems", Oper. Res. 28, 1980). Costs that run over twenty orders of magnitude
do no harm either: only the differences that still matter reach the solver, scaled to its tolerances.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, linprog, milp

from hessrank.quant.bit_choice.allocation.program import TOLERANCE, Columns, Floats, Ints, Program
from hessrank.quant.bit_choice.allocation.silence import solver_silenced

_FIRST_CORE = 64  # options in the first core, beyond one a group
_TOP = 1e3  # largest coefficient that the integer solver is given; its tolerances are 1e-6
_INFEASIBLE = 2  # SciPy's status
_GROWTH = 3  # of the core, where it proves too small
_NEARLY_ALL = 1.5  # columns that still count, as many times those of the core: time to solve for all of them
_ROUGH = 0.5  # how precisely a core is solved before that, relative to the distance from the bound


@dataclass(frozen=True)
class _Priced:
    """Columns that may be in the best solution, and what each costs.

    Attributes:
        kept: numbers of the columns, all slacks at their end.
        price: of each of them; but for a constant, their sum is the objective.
        implied: how far above the bound a solution with that column lies at least; 0 for slacks.
        bound: what any solution costs at least.
    """

    kept: Ints
    price: Floats
    implied: Floats
    bound: float

    def cheap(self, most: float) -> _Priced:
        """Keep the columns that a solution at most ``most`` above the bound can have."""
        keep = self.implied <= most
        return _Priced(self.kept[keep], self.price[keep], self.implied[keep], self.bound)

    def above_bound(self, solution: Floats) -> float:
        """Return how far above the bound a solution lies.

        At least the rounding error of that.
        """
        noise = 1e-13 * float(np.abs(self.price).max())
        return max(float(self.price @ solution[self.kept]) - self.bound, noise)


def minimize(program: Program, tolerance: float = 0.0) -> Ints | None:
    """Return the best option of each group, or None if no choice keeps the limits.

    Args:
        program: what to minimize.
        tolerance: how far above the least, relative to it, the objective may be; 1e-9 of it is not seen.
    """
    columns = Columns(program)
    search = _Search(program, columns)
    kept, price, beyond, gap = np.arange(columns.count), columns.spread(program.objective), _FIRST_CORE, np.inf
    while candidates := _relaxed(columns, kept, price):
        choice, size = search.on_core(candidates, beyond)
        if choice is None:
            return None
        before, gap = gap, candidates.above_bound(columns.solution(choice))
        total = abs(program.objective.of(choice))
        if gap <= tolerance * total:
            return choice
        candidates = candidates.cheap(gap)
        if (gap <= total or gap > before / 2) and len(candidates.kept) <= _NEARLY_ALL * size:
            best = search.on(candidates, tolerance * total / gap)
            return choice if best is None else best
        kept, price, beyond = candidates.kept, candidates.price, _GROWTH * beyond
    return None


def _relaxed(columns: Columns, kept: Ints, price: Floats) -> _Priced | None:
    """Price the columns with their reduced costs in the relaxation.

    None if that is infeasible.
    """
    rows = columns.rows(kept, 1.0)
    if rows is None:
        return None
    cost = price * rows.unit
    scale = np.abs(cost).max() or 1.0
    bounds = [(0.0, float(most)) for most in rows.upper]
    methods: tuple[Literal["highs-ipm"], Literal["highs-ds"]] = ("highs-ipm", "highs-ds")
    for method in methods:
        with solver_silenced():
            found = linprog(cost / scale, A_eq=rows.matrix, b_eq=rows.right, bounds=bounds, method=method)
        if found.status == 0:
            cost = cost - rows.matrix.T @ (found.eqlin.marginals * scale)
            break
        if found.status == _INFEASIBLE:
            return None
    bound = float(np.minimum(cost, 0.0) @ rows.upper)  # holds even for the prices as given, if neither method ends
    return _Priced(kept, cost / rows.unit, columns.implied(kept, cost / rows.unit), bound)


class _Search:
    """Solves a program on some of its columns.

    It remembers what the solver took for feasible and is not.
    """

    def __init__(self, program: Program, columns: Columns) -> None:
        self.program, self.columns = program, columns
        self.refused: list[Ints] = []

    def on_core(self, given: _Priced, beyond: int) -> tuple[Ints | None, int]:
        """Return a choice that is nearly the best on a core, and the core's size.

        Args:
            given: all columns that count.
            beyond: how many options the core has beyond one a group; more if it would hold no choice.
        """
        ordered = np.sort(given.implied[given.kept < self.columns.binaries])
        while self.columns.groups + beyond < len(ordered):
            core = given.cheap(float(ordered[self.columns.groups + beyond]))
            choice = self.on(core, _ROUGH)
            if choice is not None:
                return choice, len(core.kept)
            beyond *= _GROWTH
        return self.on(given, _ROUGH), len(given.kept)

    def on(self, core: _Priced, tolerance: float = 0.0) -> Ints | None:
        """Return the best choice on a core, or None if it has none.

        Args:
            core: the columns.
            tolerance: how much farther from the bound the choice may lie than the best, relative to that.
        """
        rows = self.columns.rows(core.kept, _TOP)
        if rows is None:
            return None
        cost = core.price * rows.unit
        cost[self.columns.in_first_group(core.kept)] -= (
            core.bound
        )  # so that a choice costs what it is above the bound
        cost *= _TOP / (np.abs(cost).max() or 1.0)
        while True:
            again = [np.isin(core.kept, refused).astype(np.float64)[None] for refused in self.refused]
            cuts = [LinearConstraint(row, -np.inf, self.columns.groups - 1) for row in again]
            with solver_silenced():
                found = milp(
                    cost,
                    integrality=(core.kept < self.columns.binaries).astype(np.int64),
                    bounds=Bounds(0.0, rows.upper),
                    constraints=[LinearConstraint(rows.matrix, rows.right, rows.right), *cuts],
                    options={"mip_rel_gap": tolerance},
                )
            if found.x is None:
                return None
            choice = self.columns.choice(found.x, core.kept)
            if self.program.within(choice):
                return choice
            self.refused.append(np.flatnonzero(choice[self.columns.group] == self.columns.option))


def improve(program: Program, choice: Ints) -> Ints:
    """Move single groups to less objective, while limits hold.

    Or to an earlier option of the same objective.

    What is less than the solver's tolerance is settled here.

    Args:
        program: its objective has no pairs.
        choice: keeps the limits.
    """
    usable = np.where(program.available & np.isfinite(program.objective.linear), program.objective.linear, np.inf)
    ordered = usable.argsort(axis=1, kind="stable")
    while (better := _one_better(program, choice, ordered)) is not None:
        choice = better
    return choice


def _one_better(program: Program, choice: Ints, ordered: Ints) -> Ints | None:
    """Return ``choice`` with the first group moved that can be.

    ``ordered`` are each group's options, best first.
    """
    spare = [most + 2 * TOLERANCE * abs(most) - cost.of(choice) for cost, most in program.bounds()]
    for group, options in enumerate(ordered):
        better = options[: int(np.flatnonzero(options == choice[group])[0])]
        for (cost, _), left in zip(program.bounds(), spare, strict=True):
            around = cost.around(choice, group)
            better = better[around[better] - around[choice[group]] <= left]
        for option in better:
            moved = choice.copy()
            moved[group] = option
            if program.within(moved):
                return moved
    return None
