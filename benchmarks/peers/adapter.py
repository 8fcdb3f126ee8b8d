"""What an adapter is, and how its probes are timed."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from benchmarks.common import seconds
from benchmarks.peers.cases import Case

Estimates = dict[str, list[float]]
"""Tensor by tensor what a peer estimated; each number is unbiased for what it says it estimates."""
Sample = Callable[[int], Estimates]
"""Asks a peer for so many probes in one call; gives all their values, or their mean alone (see ``returns_each``)."""

Tensors = Literal["activations", "weights"]

_COLD = 3.0  # seconds: a first call that takes longer is not repeated to warm up
_FEWEST, _MOST = 3, 64
_SEVERAL = 3
_TICK = 1e-6  # seconds: no probe takes less, whatever the noise of the clock


@dataclass(frozen=True)
class Peer:
    """One row of the table.

    Attributes:
        name: what it is called on the command line, and its environment and requirements with it.
        title: what the row is called.
        package: what it imports; empty if nothing but hessrank.
        tensors: whose traces these are.
        estimates: what it estimates, in a few words.
        error_bar: what it says about its own error.
        prepare: brings a case into the peer's hands, which is timed apart, as "setup".
        returns_each: whether a call gives the value of every probe, or their mean alone.
        gauss_newton: whether it estimates JᵀJ whatever the loss, and not the Hessian.
        deterministic: whether it draws nothing, so that one round is all.
    """

    name: str
    title: str
    package: str
    tensors: Tensors
    estimates: str
    error_bar: str
    prepare: Callable[[Case], Sample]
    returns_each: bool = True
    gauss_newton: bool = False
    deterministic: bool = False

    @property
    def key(self) -> str:
        """What tells its row from all others."""
        return f"{self.title}, {self.tensors}"


@dataclass
class Measured:
    """What came of one peer on one case.

    Attributes:
        setup: seconds before the first probe, once for a network: reading its graph, a pilot.
        start: seconds of each call before its first probe: the forward pass and first derivatives.
        probe: seconds of a probe of all tensors.
        probes: how many probes ``values`` are of. A tensor may have more or fewer values, where several estimators
            share the work.
        values: the estimates.
    """

    setup: float
    start: float
    probe: float
    probes: int
    values: Estimates = field(default_factory=dict)


def measure(peer: Peer, case: Case, budget: float) -> Measured:
    """Let a peer estimate, and time it.

    Args:
        peer: which one.
        case: the network.
        budget: CPU seconds that its probes may take, about; at least three are taken.
    """
    made: list[Sample] = []
    setup = seconds(lambda: made.append(peer.prepare(case)))
    sample = made[0]
    first, values = _timed(sample, 1)
    if peer.deterministic:
        return Measured(setup, 0.0, first, 1, values)
    if first < _COLD:
        first, values = _timed(sample, 1)
    count = int(min(_MOST, max(_FEWEST, budget / first)))
    if peer.returns_each:
        more, found = _timed(sample, count)
        probe = max(_TICK, (more - first) / (count - 1))
        return Measured(setup, max(0.0, first - probe), probe, 1 + count, _joined(values, found))
    singles = [first]
    for _ in range(count - 1):
        taken, found = _timed(sample, 1)
        singles.append(taken)
        values = _joined(values, found)
    several = statistics.median(_timed(sample, _SEVERAL)[0] for _ in range(1 if first > _COLD else 5))
    one = statistics.median(singles)
    probe = max(_TICK, min(one, (several - one) / (_SEVERAL - 1)))
    return Measured(setup, one - probe, probe, count, values)


def _timed(sample: Sample, count: int) -> tuple[float, Estimates]:
    found: list[Estimates] = []
    taken = seconds(lambda: found.append(sample(count)))
    return taken, found[0]


def _joined(first: Mapping[str, list[float]], second: Mapping[str, list[float]]) -> Estimates:
    return {name: [*first[name], *second[name]] for name in first}
