"""Set a policy beside others.

The same bits everywhere, and the best bits for the same BOPs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import pandas as pd
from rich.table import Table

from hessrank.analysis.result.ranking import Ranking
from hessrank.analysis.result.tables import plain_table, printed
from hessrank.errors import HessrankError, OptionError
from hessrank.quant.bit_choice.allocation.policy_cost import Bits, PolicyCost, decisions
from hessrank.quant.bit_choice.strategies import Problem
from hessrank.quant.bit_choice.strategies.budget import DEFAULT_BITS, WidthProgram
from hessrank.quant.bit_choice.summary import cost_of, settle_bits
from hessrank.quant.policy import Policy
from hessrank.terminal import plain_text
from hessrank.text import size_text

_UNIFORM = 8
_TOLERANCE = 1e-3  # of the integer program: a fraction of the time that the exact answer takes
_ROUNDING = 1 + 1e-9


@dataclass(frozen=True)
class Alternative:
    """A row of the table.

    Attributes:
        policy: what it is.
        costs: what it costs; None if it cannot be had.
        increase: predicted increase of the loss; None if it cannot be had.
        why_not: why it cannot be had; or else empty.
    """

    policy: str
    costs: PolicyCost | None = None
    increase: float | None = None
    why_not: str = ""


@dataclass(frozen=True)
class Alternatives:
    """A policy beside others that quantize the same tensors. ``print`` shows a table.

    Attributes:
        rows: the policy itself, then the others.
    """

    rows: tuple[Alternative, ...]

    def to_frame(self) -> pd.DataFrame:
        """Return one row a policy.

        ``policy``, the fields of its costs, ``increase``, ``why_not``.
        """
        frame = [
            {"policy": row.policy, **(asdict(row.costs) if row.costs else {})}
            | {"increase": row.increase, "why_not": row.why_not}
            for row in self.rows
        ]
        return pd.DataFrame(frame)

    def table(self) -> Table:
        """Return the rows as a rich table."""
        table = plain_table()
        table.add_column("")
        for head in ("size", "BOPs", "weight bits", "act bits", "increase"):
            table.add_column(head, justify="right", overflow="fold")
        for row in self.rows:
            told = row.costs
            if told is None or row.increase is None:
                table.add_row(plain_text(row.policy), "–")
                continue
            bits = (f"{mean:.3g}" for mean in (told.mean_weight_bits, told.mean_act_bits))
            table.add_row(
                plain_text(row.policy),
                size_text(told.size_mib * 2**20),
                f"{told.bops:.4g}",
                *bits,
                f"{row.increase:.3g}",
            )
        impossible = [f"{row.policy}: {row.why_not}" for row in self.rows if row.why_not]
        table.caption = plain_text("\n".join(impossible)) if impossible else None
        return table

    def __str__(self) -> str:
        return printed([self.table()], [])


def compare_policies(policy: Policy, ranking: Ranking) -> Alternatives:
    """Compare a policy with uniform bits and with the best bits for its BOPs.

    By what a ranking predicts.

    All of them quantize the tensors that the policy does. What cannot be had says why; no row is an error.

    Args:
        policy: the policy, made or written by hand.
        ranking: of the same network.

    Returns:
        four rows: this policy, 8 bits everywhere, the widest uniform bits with no more BOPs than the policy, and the
        strategy ``budget`` with no more BOPs (to 0.1 % of its increase), of the widths 4, 6, 8, 10 and the policy's.

    Raises:
        PolicyError: the policy is for another network.
        OptionError: it has bits that the ranking does not predict.

    Example:
        Weights of 1 lose nothing in 4 bits. With 8 for the input alone, 192 + 48 BOPs do what 576 would:

        >>> import torch
        >>> import hessrank
        >>> network = torch.nn.Sequential(torch.nn.Linear(2, 3, bias=False), torch.nn.Linear(3, 1, bias=False))
        >>> _ = [torch.nn.init.ones_(weight) for weight in network.parameters()]
        >>> ranking = hessrank.rank(network, torch.tensor([[0.0, 0.0], [0.5, 1.0]]))
        >>> policy = hessrank.make_policy(ranking, "budget", bits=(4, 8), budget_mean_bits=6)
        >>> hessrank.compare_policies(policy, ranking).to_frame()[["policy", "bops", "increase"]].round(6)
                             policy   bops  increase
        0               this policy  240.0  0.000017
        1                 uniform 8  576.0  0.000017
        2  uniform at the same BOPs  225.0  0.001171
        3   budget at the same BOPs  240.0  0.000017
    """
    problem, bits = settle_bits(policy, ranking)
    bops = cost_of(problem, bits).bops
    attempts: dict[str, Callable[[], Bits]] = {
        f"uniform {_UNIFORM}": lambda: _uniform(problem, _UNIFORM, bits),
        "uniform at the same BOPs": lambda: _widest(problem, bops, bits),
        "budget at the same BOPs": lambda: _best(problem, bops, bits),
    }
    rows = [_row("this policy", problem, bits)]
    for name, attempt in attempts.items():
        try:
            rows.append(_row(name, problem, attempt()))
        except HessrankError as error:
            rows.append(Alternative(name, why_not=str(error)))
    return Alternatives(tuple(rows))


def _row(name: str, problem: Problem, bits: Bits) -> Alternative:
    return Alternative(name, cost_of(problem, bits), problem.predicted.total(bits.weights, bits.grids))


def _uniform(problem: Problem, width: int, like: Bits) -> Bits:
    problem.predicted.at(width)
    return replace(like, weights=dict.fromkeys(like.weights, width), grids=dict.fromkeys(like.grids, width))


def _widest(problem: Problem, bops: float, like: Bits) -> Bits:
    """Return the widest uniform bits with no more than so many BOPs."""
    for width in reversed(problem.predicted.bits):
        found = _uniform(problem, width, like)
        if cost_of(problem, found).bops <= bops * _ROUNDING:
            return found
    least = problem.predicted.bits[0]
    took = cost_of(problem, _uniform(problem, least, like)).bops
    raise OptionError(f"{least} bits everywhere, the fewest that the ranking predicts, take {took:.4g} BOPs")


def _best(problem: Problem, bops: float, like: Bits) -> Bits:
    """Return the bits with the least predicted increase within so many BOPs."""
    if not decisions(problem.placement):
        raise OptionError("the policy quantizes nothing")
    known = set(problem.predicted.bits)
    widths = known & {*DEFAULT_BITS, *like.weights.values(), *like.grids.values()}
    program = WidthProgram.of(problem, widths)
    bits, _ = program.solve(program.limits(bops=bops), tolerance=_TOLERANCE)
    return replace(bits, one_scale=like.one_scale)
