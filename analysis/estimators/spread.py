"""How far the estimates of one probe spread, and how far Hutchinson's would: both from the same vectors.

Curvature propagation's vectors have E[s uᵀ] = H. So two independent probes i and j tell ‖H‖²: the mean of
⟨uᵢ, sⱼ⟩⟨uⱼ, sᵢ⟩ is tr HH (and that of ⟨uᵢ∘sᵢ, uⱼ∘sⱼ⟩ is Σ Hₖₖ²). The variance of Hutchinson's estimate vᵀHv, which is
2(‖H‖² − Σ Hₖₖ²) for random signs v, is known without a single double-backward pass at the layer.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from hessrank.analysis.estimators.base import Work
from hessrank.analysis.estimators.curvature_propagation import Propagation
from hessrank.analysis.statistics import Array
from hessrank.analysis.tape import Pair, Step


class Spread:
    """Variances of every layer's estimates, by place in the order of execution; NaN for layers that were not met.

    Attributes:
        variance: of one probe of curvature propagation.
        hutchinson: of one probe of Hutchinson's estimator, as far as these probes can tell; never below 0.
    """

    def __init__(self, work: Work, propagation: Propagation) -> None:
        """Send the probes of ``work``, one sample in several copies, back through ``propagation``."""
        count = len(work.network.layers)
        self.variance, self.hutchinson = np.full(count, np.nan), np.full(count, np.nan)
        fixed = _Kept(work)
        for new in propagation.send_fixed(fixed):
            fixed.keep(new)
        kept = _Kept(work)
        for group, new in propagation.rows.groups(work.indices):
            propagation.send(group, kept)
            kept.keep(new)
        for layer in kept.rows:
            self.variance[layer], self.hutchinson[layer] = _variances(kept.of(layer), fixed.of(layer))


class _Kept:
    """Keeps the vectors that arrive at each layer: those of one sample, in a pilot."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._now: dict[int, tuple[Tensor, Tensor]] = {}
        self.rows: dict[int, list[tuple[Tensor, Tensor]]] = {}

    def __call__(self, step: Step, pair: Pair) -> None:
        axis = self._work.axes[self._work.network.layers[step.layer].name]
        count = self._work.copies
        self._now[step.layer] = (axis.rows(pair[0], count), axis.rows(pair[1], count))

    def keep(self, new: int) -> None:
        """Keep the first ``new`` rows of what has arrived since the last time."""
        for layer, (one, other) in self._now.items():
            self.rows.setdefault(layer, []).append((one[:new], other[:new]))
        self._now.clear()

    def of(self, layer: int) -> tuple[Tensor, Tensor] | None:
        """Return both vectors of every probe at a layer, probes × elements; None if nothing came by."""
        if layer not in self.rows:
            return None
        ones, others = zip(*self.rows[layer], strict=True)
        return torch.cat(ones), torch.cat(others)


def _variances(found: tuple[Tensor, Tensor] | None, fixed: tuple[Tensor, Tensor] | None) -> tuple[float, float]:
    """Return the variance of ⟨u, s⟩, and of Hutchinson's estimator for E[s uᵀ] plus the fixed pairs' sum."""
    assert found is not None
    u, s = found
    first, second = (u, s) if fixed is None else (torch.cat([fixed[0], u]), torch.cat([fixed[1], s]))
    known, count = len(first) - len(u), len(u)
    gram = first.double() @ second.double().mT
    norm = _of_independent(gram * gram.mT, known, count)
    diagonal = first.double() * second.double()
    squares = _of_independent(diagonal @ diagonal.mT, known, count)
    return float(gram.diagonal()[known:].var()), max(2 * float(norm - squares), 0.0)


def _of_independent(products: Tensor, known: int, count: int) -> Tensor:
    """Return the expected product of two independent draws, each the sum of all ``known`` rows and of one other."""
    exact, mixed, drawn = products[:known, :known], products[:known, known:], products[known:, known:]
    pairs = (drawn.sum() - drawn.diagonal().sum()) / (count * (count - 1))
    return exact.sum() + 2 * mixed.sum() / count + pairs


def best_of(spreads: Sequence[Spread]) -> Array:
    """Return Hutchinson's variance at each layer, as the probes tell that spread least there."""
    variance = np.array([spread.variance for spread in spreads])
    hutchinson = np.array([spread.hutchinson for spread in spreads])
    seen = np.where(np.isnan(variance), np.inf, variance)
    rows = seen.argmin(0)
    return np.asarray(hutchinson[rows, np.arange(hutchinson.shape[1])])
