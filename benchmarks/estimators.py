"""Time of `hutchinson` (the definition) and of `gauss-newton` to the same error, side by side.

Both estimate the traces of all layers on one sample, `self` loss, no weights. A probe's relative standard
deviation s and its seconds t give the time to a relative standard error r: t·(s/r)², with s that of the
median layer. Seconds of Gauss-Newton include its share of the forward pass (one for 16 probes, as
``hessrank.rank`` does it); Hutchinson is not charged for its forward pass and first derivatives. The rank
correlation is that of the first 4 Gauss-Newton probes with the mean of all others.
"""

from __future__ import annotations

import math
import statistics
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from benchmarks.common import Row, batch_of, parsed, parser, report, seconds, work_for
from benchmarks.networks import EXAMPLES, QUICK, Example
from hessrank.analysis.estimators import ESTIMATORS, Estimates
from hessrank.network.frozen_model import freeze
from hessrank.network.network import Network

CHUNK = 16
ERROR = 0.1


def compare(name: str, example: Example, turns: int, chunks: int) -> Row:
    """Measure both estimators on one network.

    Args:
        name: what to call it.
        example: the network and its input.
        turns: Hutchinson probes.
        chunks: chunks of 16 Gauss-Newton probes between two Hutchinson probes.
    """
    model, x = example
    with freeze(model):
        network = Network(model, batch_of(x))
        slow: list[Estimates] = []
        fast: list[Estimates] = []

        def run(kept: list[Estimates], estimator: str, first: int, count: int) -> float:
            work = work_for(network, batch_of(x), range(first, first + count))
            return seconds(lambda: kept.extend(ESTIMATORS.resolve(estimator)()(work)))

        times: dict[str, list[float]] = {"fast": [], "slow": []}
        run([], "gauss-newton", 0, CHUNK)  # warm-up
        setup = min(run([], "hutchinson", 0, 0) for _ in range(2))
        for turn in range(turns):
            for chunk in range(chunks):
                times["fast"].append(run(fast, "gauss-newton", CHUNK * (turn * chunks + chunk), CHUNK) / CHUNK)
            times["slow"].append(run(slow, "hutchinson", turn, 1) - setup)
    return _row(name, times, _table(slow), _table(fast))


def _table(estimates: list[Estimates]) -> NDArray[np.float64]:
    return np.stack([one.layers[:, 0].numpy() for one in estimates], axis=1)


def relative_deviation(estimates: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return each layer's standard deviation over its mean, corrected for few probes.

    Args:
        estimates: shape (layers, probes).
    """
    deviation = estimates.std(1, ddof=1) / shrinkage(estimates.shape[1])
    return np.asarray(deviation / np.abs(estimates.mean(1)))


def shrinkage(count: int) -> float:
    """Return by how much the standard deviation of ``count`` normal numbers is too small on average, as a factor."""
    return math.sqrt(2 / (count - 1)) * math.exp(math.lgamma(count / 2) - math.lgamma((count - 1) / 2))


def _row(
    name: str, times: dict[str, list[float]], slow: NDArray[np.float64], fast: NDArray[np.float64]
) -> dict[str, Any]:
    per_probe = {which: statistics.median(taken) for which, taken in times.items()}
    deviation = {"slow": np.median(relative_deviation(slow)), "fast": np.median(relative_deviation(fast))}
    needed = {which: per_probe[which] * (deviation[which] / ERROR) ** 2 for which in per_probe}
    return {
        "network": name,
        "layers": len(slow),
        "hutchinson s/probe": per_probe["slow"],
        "gauss-newton s/probe": per_probe["fast"],
        "faster per probe": per_probe["slow"] / per_probe["fast"],
        "hutchinson rel. sd": float(deviation["slow"]),
        "gauss-newton rel. sd": float(deviation["fast"]),
        "faster to the same error": float(needed["slow"] / needed["fast"]),
        "Spearman, 4 probes": float(spearmanr(fast[:, :4].mean(1), fast[:, 4:].mean(1)).statistic),
        "median ratio of the means": float(np.median(fast.mean(1) / slow.mean(1))),
        "probes": f"{slow.shape[1]} and {fast.shape[1]}",
    }


def main() -> None:
    """Compare on every network and print the table."""
    options = parsed(parser(__doc__))
    examples, turns, chunks = (QUICK, 4, 1) if options.quick else (EXAMPLES, 8, 2)
    rows = [compare(name, make(), turns, chunks) for name, make in examples.items()]
    report("Hutchinson by double backward against Gauss-Newton, all layers, `self` loss", rows, options.out)


if __name__ == "__main__":
    main()
