"""State an allocation as an integer program.

One option for each group, least cost, within limits.

Costs are sums over groups and over pairs of groups. A pair's table T is linear in continuous y with row sums x and
column sums z, the two groups' binaries: it costs Σ T∘y (the transport formulation, whose relaxation is tight
wherever the pairs form a forest).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
Bools = NDArray[np.bool_]

TOLERANCE = 1e-9  # how far above a limit, relative to it, is still within: the rounding of sums


@dataclass(frozen=True)
class Cost:
    """A sum over groups and pairs of groups.

    Where it is not finite, the option or the pair is not available.

    Attributes:
        linear: groups × options.
        tables: for a pair of groups, the options of the one × the options of the other.
    """

    linear: Floats
    tables: Mapping[tuple[int, int], Floats] = field(default_factory=dict)

    def of(self, choice: Ints) -> float:
        """Return the cost of one option for each group."""
        total = float(self.linear[np.arange(len(choice)), choice].sum())
        return total + float(sum(table[choice[g], choice[h]] for (g, h), table in self.tables.items()))

    @cached_property
    def near(self) -> dict[int, list[tuple[int, Floats]]]:
        """The groups that each group has pairs with, and the tables.

        That group's options come first in a table.
        """
        found: dict[int, list[tuple[int, Floats]]] = defaultdict(list)
        for (g, h), table in self.tables.items():
            found[g].append((h, table))
            found[h].append((g, table.T))
        return found

    def around(self, choice: Ints, group: int) -> Floats:
        """Return what each option of one group costs beside the others' choice."""
        costs: Floats = self.linear[group] + sum(table[:, choice[other]] for other, table in self.near[group])
        return costs


@dataclass(frozen=True)
class Program:
    """What is minimized, over which options, within which limits.

    Attributes:
        objective: what to minimize.
        limits: what must stay within ``most``.
        most: as many as limits.
        available: groups × options, what may be chosen.
    """

    objective: Cost
    limits: Sequence[Cost]
    most: Sequence[float]
    available: Bools

    def within(self, choice: Ints) -> bool:
        """Return whether a choice keeps all limits, up to the rounding of sums."""
        return all(cost.of(choice) <= most + TOLERANCE * abs(most) for cost, most in self.bounds())

    def bounds(self) -> list[tuple[Cost, float]]:
        """Return each limited cost with its limit."""
        return list(zip(self.limits, self.most, strict=True))


@dataclass(frozen=True)
class Equations:
    """Equations on some of the columns.

    Attributes:
        matrix: rows × columns.
        right: right hand side of each row.
        unit: what one of each column stands for: 1, but for slacks.
        upper: the most that a column may be, in that unit.
    """

    matrix: Any
    right: Floats
    unit: Floats
    upper: Floats


class Columns:
    """The columns of the program in equations.

    First the binaries, then the pairs' y, then one slack a limit.

    Attributes:
        count: number of columns.
        binaries: number of binaries.
        slacks: number of the first slack.
        groups: number of groups.
        group: of each binary, its group.
        option: of each binary, its option.
    """

    def __init__(self, program: Program) -> None:
        costs = (program.objective, *program.limits)
        usable = program.available & np.logical_and.reduce([np.isfinite(cost.linear) for cost in costs])
        self.groups = len(usable)
        self.group, self.option = np.nonzero(usable)
        self.binaries = len(self.group)
        self._number = np.full(usable.shape, -1)
        self._number[self.group, self.option] = np.arange(self.binaries)
        self._pairs = np.array(list(dict.fromkeys(p for cost in costs for p in cost.tables)), dtype=np.intp).reshape(
            -1, 2
        )
        self._cells = [_cells((int(g), int(h)), usable, costs) for g, h in self._pairs]
        pair = np.repeat(np.arange(len(self._pairs)), [len(cells) for cells in self._cells])
        chosen = np.concatenate([np.empty((0, 2), dtype=np.intp), *self._cells])
        self._ends = [self._number[self._pairs[pair, side], chosen[:, side]] for side in (0, 1)]
        self._block = np.concatenate([self.group, self.groups + pair])  # exactly one column of a block is 1
        self.slacks = len(self._block)
        self.count = self.slacks + len(program.limits)
        chosen_once = (np.ones(self.binaries), (self.group, np.arange(self.binaries)))
        one_each = sp.coo_array(chosen_once, shape=(self.groups, self.slacks))
        self._equations = sp.vstack([one_each, self._marginals(0), self._marginals(1)], format="csc")
        self._limits = np.array([self.spread(c)[: self.slacks] for c in program.limits]).reshape(-1, self.slacks)
        self._most = np.array([most + TOLERANCE * abs(most) for most in program.most])

    def _marginals(self, side: int) -> Any:
        """Return the rows that tie a pair's y to one side's binaries.

        They say: a pair's y with one option of a group add up to that option's binary.
        """
        options = self._number.shape[1]
        own = self._number[self._pairs[:, side]]
        pair, option = np.nonzero(own >= 0)
        minus = (-np.ones(len(pair)), (pair * options + option, own[pair, option]))
        ends = self._ends[side]
        row = (self._block[self.binaries :] - self.groups) * options + self.option[ends]
        plus = (np.ones(len(ends)), (row, self.binaries + np.arange(len(ends))))
        shape = (len(self._pairs) * options, self.slacks)
        return sp.coo_array(minus, shape=shape) + sp.coo_array(plus, shape=shape)

    def spread(self, cost: Cost) -> Floats:
        """Return a cost column by column; slacks cost nothing."""
        parts = [cost.linear[self.group, self.option]]
        for (g, h), cells in zip(self._pairs, self._cells, strict=True):
            table = cost.tables.get((int(g), int(h)))
            parts.append(np.zeros(len(cells)) if table is None else table[cells[:, 0], cells[:, 1]])
        return np.concatenate([*parts, np.zeros(self.count - self.slacks)])

    def rows(self, kept: Ints, top: float) -> Equations | None:
        """Return the equations on the columns ``kept``, or None if none can hold.

        All slacks are at their end.

        What every choice costs is taken off the limits, and they are scaled so that their largest coefficient is
        ``top``.
        """
        own = kept[kept < self.slacks]
        block, limits = self._block[own], self._limits[:, own]
        least = np.full((len(limits), self.groups + len(self._pairs)), np.inf)
        for row, values in zip(least, limits, strict=True):
            np.minimum.at(row, block, values)
        room = self._most - least.sum(axis=1)
        if len(np.unique(block)) < least.shape[1] or (room < 0).any():
            return None
        excess = limits - least[:, block]
        scale = excess.max(axis=1, initial=0.0) / top
        scale[scale == 0] = 1.0
        equations = self._equations[:, own]
        matrix = (
            sp.block_array(
                [[equations, None], [sp.csc_array(excess / scale[:, None]), sp.eye_array(len(scale))]], format="csc"
            )
            if len(scale)
            else equations
        )
        ones = np.ones(len(own))
        zeros = np.zeros(equations.shape[0] - self.groups)
        return Equations(
            matrix,
            np.concatenate([np.ones(self.groups), zeros, room / scale]),
            np.concatenate([ones, scale]),
            np.concatenate([ones, room / scale]),
        )

    def implied(self, kept: Ints, price: Floats) -> Floats:
        """Return the least that each column costs with what it brings along.

        A binary brings one y of each of its pairs and the binary at that one's other end; a y brings both its
        binaries, and one y of each other pair of theirs. No column is counted twice.

        Args:
            kept: numbers of columns.
            price: of each of them; negative ones count as 0.
        """
        cost = np.full(self.count, np.inf)
        cost[kept] = np.maximum(price, 0.0)
        own, y = cost[: self.binaries], cost[self.binaries : self.slacks]
        pair = self._block[self.binaries :] - self.groups
        whole, brought, others = own.copy(), np.zeros_like(own), y + own[self._ends[0]] + own[self._ends[1]]
        alone = []
        for side in (0, 1):
            here, there = self._ends[side], self._ends[1 - side]
            ends = self._number[self._pairs[:, side]]
            used = ends >= 0
            for values, total in ((y + own[there], whole), (y, brought)):
                least = np.full(ends.shape, np.inf)
                np.minimum.at(least, (pair, self.option[here]), values)
                np.add.at(total, ends[used], least[used])
            alone.append(least[pair, self.option[here]])
        with np.errstate(invalid="ignore"):  # inf - inf, of columns that are not kept
            others += brought[self._ends[0]] - alone[0] + brought[self._ends[1]] - alone[1]
        return np.concatenate([whole, others, np.zeros(self.count - self.slacks)])[kept]

    def in_first_group(self, kept: Ints) -> Bools:
        """Return which of the columns ``kept`` are options of group 0.

        Every choice has one of them.
        """
        found = np.zeros(len(kept), dtype=np.bool_)
        own = kept < self.binaries
        found[own] = self.group[kept[own]] == 0
        return found

    def solution(self, choice: Ints) -> Floats:
        """Return the columns' values at a choice."""
        chosen = choice[self.group] == self.option
        found = np.concatenate([chosen, chosen[self._ends[0]] & chosen[self._ends[1]]]).astype(np.float64)
        return np.concatenate([found, self._most - self._limits @ found])

    def choice(self, values: Floats, kept: Ints) -> Ints:
        """Return each group's option, read off the values of the columns ``kept``."""
        likely = np.full(self._number.shape, -1.0)
        own = kept < self.binaries
        likely[self.group[kept[own]], self.option[kept[own]]] = values[own]
        options: Ints = likely.argmax(axis=1)
        return options


def _cells(pair: tuple[int, int], usable: Bools, costs: Sequence[Cost]) -> Ints:
    """Return which options of a pair go together, cells × 2."""
    fits = np.outer(usable[pair[0]], usable[pair[1]])
    for cost in costs:
        if pair in cost.tables:
            fits &= np.isfinite(cost.tables[pair])
    cells: Ints = np.argwhere(fits)
    return cells
