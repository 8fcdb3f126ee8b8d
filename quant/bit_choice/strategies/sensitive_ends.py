"""Give both ends of every sub-network more bits.

As far inward as the predicted increase stays high.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from statistics import fmean

from hessrank.bounds import check_number
from hessrank.errors import OptionError
from hessrank.quant.bit_choice.strategies.problem import BitChoice, Problem
from hessrank.quant.bit_choice.strategies.selection import raise_kernels
from hessrank.quant.registries import STRATEGIES

_Neighbors = Mapping[str, tuple[str, ...]]


@STRATEGIES.register("sensitive-ends")
def sensitive_ends(problem: Problem, *, high_bits: int = 10, base_bits: int = 8, falloff: float = 0.25) -> BitChoice:
    """Give the ends of every sub-network, and the network's input, ``high_bits``.

    From each end (a weighted layer that reads what enters, or makes what leaves a sub-network) one goes inward
    kernel by kernel while the predicted increase at ``base_bits`` is at least ``falloff`` times the largest on
    the way, and ``falloff`` times the network's mean. What lies behind a kernel that falls below is not looked at.

    Args:
        problem: the ranked network.
        high_bits: for the ends.
        base_bits: for all else.
        falloff: between 0 (everything) and 1 (only while the increase grows).

    Raises:
        OptionError: ``falloff`` is out of range, or bits that the ranking does not predict.

    Example:
        Of all tensors only the input loses anything to rounding, so that one goes nowhere from the ends:

        >>> import torch
        >>> import hessrank
        >>> sizes = [2, 1, 1, 1, 1]
        >>> network = torch.nn.Sequential(*map(torch.nn.Linear, sizes, sizes[1:], [False] * 4))
        >>> _ = [torch.nn.init.ones_(weight) for weight in network.parameters()]
        >>> ranking = hessrank.rank(network, torch.tensor([[0.0, 0.0], [0.5, 1.0]]))
        >>> list(hessrank.make_policy(ranking, "sensitive-ends").layers)
        ['input_layer', '0', '3']
    """
    if not 0 < check_number("falloff", falloff) <= 1:
        raise OptionError(f"falloff is {falloff}: it should lie between 0 and 1, as 0.25")
    kernels = problem.kernels.by_name
    increases = {name: problem.increase(kernel, base_bits) for name, kernel in kernels.items()}
    found: dict[str, tuple[int, str]] = dict.fromkeys(problem.graph.inputs, (0, "input of the network"))
    for end, neighbors, where, inside in _ends(problem):
        for name, distance in _inward(end, neighbors, inside, increases, falloff).items():
            reason = (distance, f"kernel {distance + 1} from the {where}")
            found[name] = min(reason, found.get(name, reason))
    return raise_kernels(problem, {name: reason for name, (_, reason) in found.items()}, high_bits, base_bits)


def _ends(problem: Problem) -> Iterator[tuple[str, _Neighbors, str, Collection[str]]]:
    """Yield each end's kernel, and the way inward from it.

    Also what to call the end, and the layers of its sub-network.
    """
    kernels = problem.kernels
    sources = {name: kernel.sources for name, kernel in kernels.by_name.items()}
    for part in problem.sub_networks:
        name, inside = part.name or "the network", frozenset(part.layers)
        yield from ((kernels.holding(e), kernels.readers, f"beginning of {name}", inside) for e in part.entries)
        yield from ((kernels.holding(e), sources, f"end of {name}", inside) for e in part.exits)


def _inward(
    end: str, neighbors: _Neighbors, inside: Collection[str], increases: Mapping[str, float], falloff: float
) -> dict[str, int]:
    """Return the kernels from ``end`` inward whose increase is high.

    And how many kernels away they are.
    """
    usual = fmean(increases.values())
    found = {end: 0}
    waiting = [(end, increases[end])]
    for name, peak in waiting:
        for neighbor in neighbors[name]:
            high = increases[neighbor] >= falloff * max(peak, usual)
            if high and neighbor in inside and neighbor not in found:
                found[neighbor] = found[name] + 1
                waiting.append((neighbor, max(peak, increases[neighbor])))
    return found
