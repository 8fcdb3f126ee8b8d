"""Give the most sensitive kernels more bits.

So many of them, or all above a threshold.
"""

from __future__ import annotations

from collections.abc import Mapping

from hessrank.bounds import check_number, check_whole
from hessrank.errors import OptionError, unknown_name
from hessrank.quant.bit_choice.strategies.problem import BitChoice, Problem
from hessrank.quant.layer_graph.integer_kernels import IntegerKernel
from hessrank.quant.registries import STRATEGIES

MEASURES = ("increase", "trace", "mean_trace")


@STRATEGIES.register("top-k")
def top_k(
    problem: Problem, *, high_bits: int = 10, base_bits: int = 8, count: int = 10, by: str = "increase"
) -> BitChoice:
    """Give the ``count`` most sensitive kernels ``high_bits``.

    Args:
        problem: the ranked network.
        high_bits: for the most sensitive ones.
        base_bits: for all else.
        count: how many kernels (a convolution with its batch norm and activation is one).
        by: ``increase`` (predicted at ``base_bits``, weight and tensor together), ``trace`` or ``mean_trace``.

    Raises:
        OptionError: ``count`` is less than 1.

    Example:
        The traces of input, first and second layer are 36, 6 and 2:

        >>> import torch
        >>> import hessrank
        >>> network = torch.nn.Sequential(torch.nn.Linear(2, 3, bias=False), torch.nn.Linear(3, 1, bias=False))
        >>> _ = [torch.nn.init.ones_(weight) for weight in network.parameters()]
        >>> ranking = hessrank.rank(network, torch.ones(4, 2))
        >>> list(hessrank.make_policy(ranking, "top-k", count=2, by="trace").layers)
        ['input_layer', '0']
    """
    check_whole("count", count, least=1)
    values = _measured(problem, by, base_bits)
    ordered = sorted(values, key=lambda name: -values[name])[:count]
    return raise_kernels(
        problem, {name: f"number {i} by {by}" for i, name in enumerate(ordered, 1)}, high_bits, base_bits
    )


@STRATEGIES.register("threshold")
def threshold(
    problem: Problem, *, high_bits: int = 10, base_bits: int = 8, above: float | None = None, by: str = "increase"
) -> BitChoice:
    """Give all kernels whose sensitivity is larger than ``above`` ``high_bits``.

    Args:
        problem: the ranked network.
        high_bits: for the sensitive ones.
        base_bits: for all else.
        above: in units of ``by``: the loss, or the loss per squared activation.
        by: ``increase`` (predicted at ``base_bits``, weight and tensor together), ``trace`` or ``mean_trace``.

    Raises:
        OptionError: ``above`` is missing.

    Example:
        The traces of input, first and second layer are 36, 6 and 2:

        >>> import torch
        >>> import hessrank
        >>> network = torch.nn.Sequential(torch.nn.Linear(2, 3, bias=False), torch.nn.Linear(3, 1, bias=False))
        >>> _ = [torch.nn.init.ones_(weight) for weight in network.parameters()]
        >>> ranking = hessrank.rank(network, torch.ones(4, 2))
        >>> list(hessrank.make_policy(ranking, "threshold", above=10, by="trace").layers)
        ['input_layer']
    """
    values = _measured(problem, by, base_bits)
    if above is None:
        top = max(values.values(), default=0.0)
        raise OptionError(f"threshold needs --above; by {by} the kernels reach up to {top:.3g}")
    check_number("above", above)
    chosen = {name: f"{by} {value:.2g} > {above:g}" for name, value in values.items() if value > above}
    return raise_kernels(problem, chosen, high_bits, base_bits)


def raise_kernels(problem: Problem, chosen: Mapping[str, str], high_bits: int, base_bits: int) -> BitChoice:
    """Give the ``chosen`` kernels ``high_bits`` and all else ``base_bits``.

    ``chosen`` holds a reason for each name.
    """
    for bits in (base_bits, high_bits):
        problem.predicted.at(bits)
    if high_bits < base_bits:
        raise OptionError(f"high bits {high_bits} are fewer than base bits {base_bits}")
    kernels = {name: problem.kernels.by_name[name] for name in problem.kernels.by_name if name in chosen}
    weights = {kernel.weight: high_bits for kernel in kernels.values() if kernel.weight is not None}
    grids = {kernel.grid: high_bits for kernel in kernels.values() if kernel.grid is not None}
    why = {layer: chosen[name] for name, kernel in kernels.items() for layer in kernel.layers}
    return BitChoice(base_bits, weights, grids, why)


def _measured(problem: Problem, by: str, base_bits: int) -> dict[str, float]:
    def measure(kernel: IntegerKernel) -> float:
        if by == "increase":
            return problem.increase(kernel, base_bits)
        return float(problem.rows[kernel.name][by])

    if by not in MEASURES:
        raise unknown_name("measure", by, MEASURES)
    return {name: measure(kernel) for name, kernel in problem.kernels.by_name.items() if kernel.grid or kernel.weight}
