"""How often the 95 % intervals hold what they should: the exact traces, and the true ranks.

Two small networks learn scikit-learn's digits (8×8 pixels, needs the extra ``lowlight``) for a second or two; the
exact traces come from the estimator `exact`. Many seeds each repeat the estimate: on one digit with a fixed number
of probes; on some digits drawn from all 1797, whose mean trace is the truth; and by ``hessrank.rank`` itself,
which decides on its own when to stop. Seeds go through the estimator side by side as samples of a batch, each
with random numbers of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import skew
from torch import Tensor

from benchmarks.common import Row, batch_of, parsed, parser, report, work_for
from benchmarks.digits import trained_networks
from hessrank import rank
from hessrank.analysis.estimators import ESTIMATORS
from hessrank.analysis.statistics import Array, Replicates, rank_intervals, summarize
from hessrank.network.frozen_model import freeze
from hessrank.network.network import Network

AT_ONCE = 500
SINGLE = (0, 1)  # the digits that are estimated alone


@dataclass
class Subject:
    """A network and what is true of it.

    Attributes:
        name: what to call it.
        network: the network.
        population: all samples.
        exact: the exact trace of every layer on each sample, layers × samples.
        noisy: which layers' estimates vary at all: the output's own, of the squared error, do not (tr B is known).
    """

    name: str
    network: Network
    population: Tensor
    exact: Array
    noisy: NDArray[np.bool_]

    @classmethod
    def of(cls, name: str, network: Network, population: Tensor) -> Subject:
        """Compute the exact traces."""
        exact = estimates(network, population, 1, "exact")[:, :, 0]
        pilot = estimates(network, population[:4], 8)
        return cls(name, network, population, exact, (pilot.std(2) > 1e-5 * pilot.mean(2)).any(1))


def estimates(network: Network, x: Tensor, probes: int, estimator: str = "gauss-newton", first: int = 0) -> Array:
    """Return one estimate a layer, sample and probe; samples have probes of their own, by number from ``first``."""
    tables = []
    for start in range(0, len(x), AT_ONCE):
        batch = batch_of(x[start : start + AT_ONCE], first + start)
        work = work_for(network, batch, range(probes))
        tables.append(np.stack([e.layers.numpy() for e in ESTIMATORS.resolve(estimator)()(work)], 2))
    return np.concatenate(tables, 1)


def replicates(table: Array) -> Array:
    """Turn layers × samples × probes into the replicates that ``hessrank.rank`` would judge by."""
    kept = Replicates(table.shape[0], table.shape[1])
    for probe in range(table.shape[2]):
        kept.add(range(table.shape[1]), table[:, :, probe])
    return kept.values()


def one_sample(subject: Subject, probes: int, seeds: int) -> Iterable[tuple[Array, Array]]:
    """Yield replicates and truth for each digit and seed."""
    for which in SINGLE:
        x = subject.population[which : which + 1].expand(seeds, -1, -1, -1)
        table = estimates(subject.network, x, probes, first=which * seeds)
        yield from ((replicates(table[:, [seed]]), subject.exact[:, which]) for seed in range(seeds))


def some_samples(subject: Subject, samples: int, probes: int, seeds: int) -> Iterable[tuple[Array, Array]]:
    """Yield replicates and truth for each seed; each draws its own digits, with replacement."""
    picks = np.random.default_rng(0).integers(len(subject.population), size=seeds * samples)
    table = estimates(subject.network, subject.population[picks], probes)
    truth = subject.exact.mean(1)
    yield from ((replicates(part), truth) for part in np.split(table, seeds, axis=1))


def score(case: str, subject: Subject, drawn: Iterable[tuple[Array, Array]], *, of_samples: bool) -> Row:
    """Return how many of the intervals hold the truth."""
    traces, ranks, above, skews = [], [], [], []
    for values, exact in drawn:
        found, (low, high) = summarize(values, of_samples=of_samples), rank_intervals(values)
        true_low, true_high = true_ranks(exact)
        traces.append((found.low <= exact) & (exact <= found.high))
        above.append(found.high < exact)
        ranks.append((low <= true_low) & (true_high <= high))
        skews.append(values - exact[:, None])
    return _row(case, subject, np.array(traces), np.array(ranks), np.array(above), np.concatenate(skews, 1))


def true_ranks(exact: Array) -> tuple[Array, Array]:
    """Return the first and the last place of each layer; layers that are equal to rounding share theirs."""
    larger = exact[None] > exact[:, None] * (1 + 1e-4)
    smaller = exact[None] < exact[:, None] * (1 - 1e-4)
    return 1 + larger.sum(1), len(exact) - smaller.sum(1)


def _row(case: str, subject: Subject, traces: Array, ranks: Array, above: Array, errors: Array) -> Row:
    traces, above, errors = traces[:, subject.noisy], above[:, subject.noisy], errors[subject.noisy]
    by_layer = traces.mean(0)
    return {
        "network": subject.name,
        "case": case,
        "trials": len(traces),
        "held %": 100 * float(traces.mean()),
        "worst layer %": 100 * float(by_layer.min()),
        "best layer %": 100 * float(by_layer.max()),
        "truth above %": 100 * float(above.mean()),
        "skewness of a replicate": float(np.median(skew(errors, axis=1))),
        "rank held %": 100 * float(ranks.mean()),
        "worst layer's rank %": 100 * float(ranks.mean(0).min()),
    }


def with_fixed_probes(subject: Subject, seeds: int) -> Iterator[Row]:
    """Score given numbers of probes and samples."""
    for probes in (8, 32, 64, 256):
        yield score(f"1 sample, {probes} probes", subject, one_sample(subject, probes, seeds), of_samples=False)
    for samples, probes in ((4, 8), (8, 4), (32, 2), (128, 2)):
        case = f"{samples} samples, {probes} probe{'s'[: probes > 1]} each"
        yield score(case, subject, some_samples(subject, samples, probes, seeds), of_samples=True)


def by_rank(subject: Subject, samples: int, seeds: int) -> Row:
    """Score what ``hessrank.rank`` writes when it decides itself how many probes to take."""
    rng, traces, ranks, above, probes = np.random.default_rng(1), [], [], [], 0
    for seed in range(seeds):
        pick = rng.integers(len(subject.population), size=samples)
        exact = subject.exact[:, pick].mean(1) if samples == 1 else subject.exact.mean(1)
        ranking = rank(
            subject.network.model, subject.population[pick], estimator="gauss-newton", seed=seed,
            batch_size=samples, bits=[8], weights=False,
        )  # fmt: skip
        frame = ranking.to_frame().sort_values("execution_index")
        true_low, true_high = true_ranks(exact)
        traces.append(((frame["ci_low"] <= exact) & (exact <= frame["ci_high"])).to_numpy())
        above.append((frame["ci_high"] < exact).to_numpy())
        ranks.append(((frame["rank_low"] <= true_low) & (true_high <= frame["rank_high"])).to_numpy())
        probes += int(frame["num_probes"].max())
    case = f"rank(): {samples} sample{'s'[: samples > 1]}, {probes / seeds:.0f} probes on average"
    row = _row(case, subject, np.array(traces), np.array(ranks), np.array(above), np.zeros((len(subject.noisy), 2)))
    return {**row, "skewness of a replicate": ""}


def main() -> None:
    """Run all cases on both networks and print the table."""
    options = parsed(parser(__doc__))
    torch.manual_seed(0)
    seeds, steps = (40, 50) if options.quick else (500, 400)
    rows: list[Row] = []
    for name, model, population in trained_networks(steps):
        with freeze(model):
            network = Network(model, batch_of(population[:1]))
            subject = Subject.of(name, network, population)
            rows.extend(with_fixed_probes(subject, seeds))
        rows.extend(by_rank(subject, samples, seeds) for samples in (1, 8, 32))
    report("Coverage of the 95 % intervals", rows, options.out)


if __name__ == "__main__":
    main()
