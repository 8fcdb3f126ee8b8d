"""Turns estimates into traces with error bars, and into an order.

The unit of replication is the sample: two probes of one sample are not two independent draws of the data
(cluster-robust errors; Cameron & Miller 2015). With a single sample, blocks of probes take its place, and the
error bar speaks of that sample only. At most :data:`BLOCKS` blocks are kept, however many the probes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from hessrank.distributed import Team

Array = NDArray[np.float64]

BLOCKS = 32
_ENOUGH_TO_SEE_SKEWNESS = 32
CONFIDENCE = 0.95


class Replicates:
    """Sums of estimates by row (layer or weight), sample and block of probes."""

    def __init__(self, rows: int, samples: int, *, deterministic: bool = False) -> None:
        """Start empty.

        Args:
            rows: number of layers or weights.
            samples: number of samples.
            deterministic: one estimate is the exact value of a sample.
        """
        self.deterministic = deterministic
        self.num_probes = np.zeros(samples, dtype=np.int64)
        self._blocks = BLOCKS if samples == 1 and not deterministic else 1
        self._width = 1 if self._blocks > 1 else np.iinfo(np.int64).max  # probes a block
        self._sums = np.zeros((rows, samples, self._blocks))
        self._squares = np.zeros((rows, samples))

    def add(self, samples: Sequence[int], values: Array) -> None:
        """Add one probe's estimates.

        Args:
            samples: which samples they are of.
            values: shape (rows, len(samples)).
        """
        columns = list(samples)
        block = int(self.num_probes[columns[0]]) // self._width
        if block == self._blocks:
            joined = self._sums[:, :, 0::2] + self._sums[:, :, 1::2]  # half of the blocks are free again
            self._sums = np.concatenate([joined, np.zeros_like(joined)], axis=2)
            self._width *= 2
            block = int(self.num_probes[columns[0]]) // self._width
        self._sums[:, columns, block] += values
        self._squares[:, columns] += values**2
        self.num_probes[columns] += 1

    def share(self, team: Team) -> None:
        """Take each process's samples from that process."""
        self._width = int(team.reduce_max(np.array(self._width)))  # only its own process has seen a lone sample
        self._sums, self._squares = team.gather(self._sums, 1), team.gather(self._squares, 1)
        self.num_probes = team.gather(self.num_probes, 0)

    def state(self) -> dict[str, NDArray[Any]]:
        """Return all that it holds."""
        width = np.array(self._width)
        return {"sums": self._sums, "squares": self._squares, "num_probes": self.num_probes, "width": width}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Hold what :meth:`state` returned."""
        self._sums, self._squares = state["sums"], state["squares"]
        self.num_probes, self._width = state["num_probes"], int(state["width"])

    def per_sample(self) -> Array:
        """Return the mean over probes, shape (rows, samples)."""
        return np.asarray(self._sums.sum(2) / np.maximum(self.num_probes, 1))

    def values(self) -> Array:
        """Return independent replicates of each row, shape (rows, replicates).

        A replicate is a sample or, of a single sample, a block of probes.
        """
        if self._blocks == 1:
            return self.per_sample()
        counts = np.clip(int(self.num_probes[0]) - self._width * np.arange(self._blocks), 0, self._width)
        full = counts == self._width
        if not full.any():
            full = counts > 0
        return np.asarray(self._sums[:, 0, full] / counts[full])

    def variances(self, sample: int) -> Array:
        """Return each row's variance of one probe on a sample; NaN before the second."""
        count = int(self.num_probes[sample])
        if count < 2:
            return np.full(len(self._sums), np.nan)
        mean = self._sums[:, sample].sum(1) / count
        return np.asarray(np.maximum(self._squares[:, sample] - count * mean**2, 0) / (count - 1))

    def probe_share(self) -> Array:
        """Return the share of the squared standard error that more probes would remove.

        It has one entry a row, 0 to 1.
        """
        if self.deterministic:
            return np.zeros(len(self._sums))
        if self.per_sample().shape[1] == 1:
            return np.ones(len(self._sums))
        count = np.maximum(self.num_probes, 2)
        within = np.maximum(self._squares - count * self.per_sample() ** 2, 0) / (count - 1) / count
        between = self.per_sample().var(1, ddof=1)
        return np.asarray(np.clip(within.mean(1) / np.where(between > 0, between, 1), 0, 1))


def average_groups(values: Array, count: int) -> Array:
    """Return ``count`` replicates, means of groups of them.

    A single, exact value is repeated.
    """
    if values.shape[1] == 1:
        return np.repeat(values, count, axis=1)
    return np.stack([group.mean(1) for group in np.array_split(values, count, axis=1)], axis=1)


@dataclass(frozen=True)
class IntervalSummary:
    """Means with error bars, one entry a row.

    Attributes:
        mean: mean over the replicates.
        sem: its standard error; NaN if it is unknown, with a single replicate.
        low: lower end of the 95 % interval (Student's t; Hall's correction for skewness from 32 samples on).
        high: upper end.
    """

    mean: Array
    sem: Array
    low: Array
    high: Array


def summarize(values: Array, *, deterministic: bool = False, of_samples: bool = True) -> IntervalSummary:
    """Return mean, standard error and 95 % interval of each row.

    Args:
        values: independent replicates, shape (rows, replicates).
        deterministic: a single replicate is exact.
        of_samples: each replicate is a sample; blocks of probes, means of alike draws, are hardly skewed.
    """
    count = values.shape[1]
    mean = values.mean(1)
    if count > 1:
        sem = values.std(1, ddof=1) / np.sqrt(count)
    else:
        sem = np.where(np.isnan(mean), np.nan, 0.0) if deterministic else np.full_like(mean, np.nan)
    below, above = _interval_reach(values, of_samples=of_samples)
    return IntervalSummary(mean, sem, mean - below * sem, mean + above * sem)


def _interval_reach(values: Array, *, of_samples: bool) -> tuple[Array, Array]:
    """Return how many standard errors the interval spans below and above the mean.

    Student's t misses the mean of very unequal samples: a few large ones are often not among them, and the mean
    and its error are both too small then. Hall's transformation ("On the removal of skewness by transformation",
    1992) corrects that; it needs enough samples to estimate the skewness.
    """
    count = values.shape[1]
    t = np.full(len(values), critical_value(count))
    if count < _ENOUGH_TO_SEE_SKEWNESS or not of_samples:
        return t, t
    skewness = _skewness(values) / np.sqrt(count)

    def inverse(x: Array) -> Array:
        return np.asarray(3 / skewness * (np.cbrt(1 + skewness * (x - skewness / 6)) - 1))

    return inverse(t), -inverse(-t)


def _skewness(values: Array) -> Array:
    """Return each row's sample skewness, or 10⁻³ where it is nearly 0: a divisor."""
    mean, spread = values.mean(1), values.std(1)
    visible = spread > 1e-9 * np.abs(mean)
    cubes = ((values - mean[:, None]) / np.where(visible, spread, 1)[:, None]) ** 3
    return np.where(visible & (np.abs(cubes.mean(1)) > 1e-3), cubes.mean(1), 1e-3)


def critical_value(replicates: int, comparisons: int = 1) -> float:
    """Return the two-sided 95 % quantile of Student's t for ``comparisons``.

    It has Bonferroni's correction.
    """
    tail = (1 - CONFIDENCE) / max(1, comparisons) / 2
    return -float(stdtrit(max(1, replicates - 1), tail))  # scipy.stats has it too, and takes a second to import


def rank_intervals(values: Array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the lowest and the highest rank that each row may have, at 95 %.

    Rank 1 is the largest mean.

    A row is above another for certain when their paired difference is farther from zero than its error times
    t, corrected for comparing it with all others (Mogstad et al. 2024, "Inference for ranks").

    Args:
        values: independent replicates, shape (rows, replicates); rows share the replicates, so what samples
            or probes have in common cancels in a difference.
    """
    rows, count = values.shape
    low, high = np.ones(rows, dtype=np.int64), np.full(rows, rows, dtype=np.int64)
    for start in range(0, rows, 512):  # never rows × rows at once
        part = slice(start, start + 512)
        difference = values[part].mean(1)[:, None] - values.mean(1)[None]
        bound = critical_value(count, rows - 1) * difference_errors(values[part], values)
        low[part] += (difference < -bound).sum(1)
        high[part] -= (difference > bound).sum(1)
    return low, high


def difference_errors(rows: Array, others: Array) -> Array:
    """Return the standard errors of the differences of all pairs of rows."""
    count = rows.shape[1]
    if count == 1:
        scale = np.maximum(np.abs(rows), np.abs(others.T))
        return np.asarray(1e-9 * scale)  # exact values: apart unless equal to rounding
    a, b = (x - x.mean(1, keepdims=True) for x in (rows, others))
    variance = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T
    return np.asarray(np.sqrt(np.maximum(variance, 0) / (count - 1) / count))


@dataclass(frozen=True)
class Gaps:
    """The differences between neighbors in an order.

    Entry i is that between places i and i + 1.

    Attributes:
        size: difference of the means, not negative.
        bound: how far from zero it must be to be certain, at 95 % for all neighbors together.
        scale: the larger of the two means, in absolute value.
    """

    size: Array
    bound: Array
    scale: Array

    @classmethod
    def between(cls, values: Array, order: NDArray[np.int64]) -> Gaps:
        """Return the gaps between neighboring rows of replicates.

        ``values`` has the shape (rows, replicates); ``order`` holds row indices, the largest mean first.
        """
        ordered = values[order]
        means, count = ordered.mean(1), values.shape[1]
        steps = ordered[:-1] - ordered[1:]
        error = steps.std(1, ddof=1) / np.sqrt(count) if count > 1 else np.full(len(steps), np.inf)
        return cls(
            np.abs(means[:-1] - means[1:]),
            critical_value(count, len(steps)) * error,
            np.maximum(np.abs(means[:-1]), np.abs(means[1:])),
        )

    def open(self, tolerance: float, noise: float | Array = 1.0) -> NDArray[np.bool_]:
        """Return which neighbors are neither certainly ordered nor certainly close.

        Args:
            tolerance: difference, relative to the larger mean, that does not matter.
            noise: what the bounds are multiplied by first, to ask what less noise would settle.
        """
        bound = self.bound * np.maximum(noise, np.finfo(np.float64).tiny)  # an unknown bound stays unknown
        return np.asarray(~((self.size > bound) | (self.size + bound <= tolerance * self.scale)))
