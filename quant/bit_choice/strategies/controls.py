"""Make the policies that others should be compared with.

The same bits everywhere, and many bits where they matter least.
"""

from __future__ import annotations

from hessrank.bounds import check_number
from hessrank.errors import OptionError
from hessrank.quant.bit_choice.allocation import Bits, count_costs
from hessrank.quant.bit_choice.strategies.problem import BitChoice, Problem
from hessrank.quant.registries import STRATEGIES


@STRATEGIES.register("uniform")
def uniform(problem: Problem, *, base_bits: int = 8) -> BitChoice:
    """Give everything ``base_bits``.

    Args:
        problem: the ranked network.
        base_bits: for all.

    Example:
        >>> import torch
        >>> import hessrank
        >>> network = torch.nn.Sequential(torch.nn.Linear(2, 3, bias=False), torch.nn.Linear(3, 1, bias=False))
        >>> _ = [torch.nn.init.ones_(weight) for weight in network.parameters()]
        >>> policy = hessrank.make_policy(hessrank.rank(network, torch.ones(4, 2)), "uniform", base_bits=4)
        >>> list(policy.layers), policy.weight_scheme("0").bits
        ([], 4)
    """
    problem.predicted.at(base_bits)
    return BitChoice(base_bits, {}, {})


@STRATEGIES.register("middle")
def middle(
    problem: Problem, *, high_bits: int = 10, base_bits: int = 8, budget_bops: float | None = None
) -> BitChoice:
    """Give the kernels in the middle of each sub-network ``high_bits``.

    The nearest to the middle first, as many as the BOPs allow.

    A control for ``sensitive-ends`` at the same cost.

    Args:
        problem: the ranked network.
        high_bits: for the middle.
        base_bits: for all else.
        budget_bops: most BOPs of one sample.

    Raises:
        OptionError: no budget is given, or none is left by ``base_bits`` everywhere.

    Example:
        With 8 bits 6 + 3 MACs take 576 BOPs; 10 bits in layer 0, which layer 1 reads, make it 6·10·8 + 3·8·10 = 720.

        >>> import torch
        >>> import hessrank
        >>> network = torch.nn.Sequential(torch.nn.Linear(2, 3, bias=False), torch.nn.Linear(3, 1, bias=False))
        >>> _ = [torch.nn.init.ones_(weight) for weight in network.parameters()]
        >>> ranking = hessrank.rank(network, torch.ones(4, 2))
        >>> list(hessrank.make_policy(ranking, "middle", budget_bops=720).layers)
        ['0']
    """
    if budget_bops is None:
        raise OptionError("middle needs --budget-bops, the BOPs of the policy that it is to be compared with")
    check_number("budget_bops", budget_bops, least=0)
    placement = problem.placement

    def bops(choice: BitChoice) -> float:
        return count_costs(
            problem.graph, placement, Bits(choice.all_weights(placement), choice.all_grids(placement))
        ).bops

    choice: BitChoice = uniform(problem, base_bits=base_bits)
    if bops(choice) > budget_bops:
        raise OptionError(f"{base_bits} bits everywhere take {bops(choice):.4g} BOPs, more than {budget_bops:.4g}")
    for name in _from_the_middle(problem):
        kernel = problem.kernels.by_name[name]
        weights = {**choice.weights, **({kernel.weight: high_bits} if kernel.weight else {})}
        grids = {**choice.grids, **({kernel.grid: high_bits} if kernel.grid else {})}
        more = BitChoice(base_bits, weights, grids, {**choice.why, **dict.fromkeys(kernel.layers, "middle")})
        if bops(more) > budget_bops:
            break
        choice = more
    return choice


def _from_the_middle(problem: Problem) -> list[str]:
    """Return the kernels, those nearest to the middle of their sub-network first."""
    far = []
    for part in problem.sub_networks:
        inside = [name for name in problem.kernels.by_name if name in part.layers]
        far += [(abs(2 * place / max(1, len(inside) - 1) - 1), name) for place, name in enumerate(inside)]
    return [name for _, name in sorted(far)]
