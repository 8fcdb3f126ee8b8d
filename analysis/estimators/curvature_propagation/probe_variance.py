"""Measures the variance of one probe, and of one of Hutchinson's, at each layer.

Both come from the same vectors.

Curvature propagation's vectors have E[s uᵀ] = H. So two independent probes i and j estimate ‖H‖²: the mean of
⟨uᵢ, sⱼ⟩⟨uⱼ, sᵢ⟩ is tr HH (and that of ⟨uᵢ∘sᵢ, uⱼ∘sⱼ⟩ is Σ Hₖₖ²). The variance of Hutchinson's estimate vᵀHv, which is
2(‖H‖² − Σ Hₖₖ²) for random signs v, is known without a single double-backward pass at the layer.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from hessrank.analysis.estimators.base import Work
from hessrank.analysis.estimators.curvature_propagation.estimator import Propagation
from hessrank.analysis.estimators.curvature_propagation.layer_functions import LayerFunction, Pair
from hessrank.analysis.statistics import Array


class ProbeVariance:
    """Variances of every layer's estimates, in the order of execution.

    They are NaN for layers that no vector reached.

    Attributes:
        variance: of one probe of curvature propagation.
        hutchinson: of one probe of Hutchinson's estimator, as far as these probes can tell; never below 0.
        hutchinson_error: the standard error of ``hutchinson``.
    """

    def __init__(self, work: Work, propagation: Propagation) -> None:
        """Send the probes of ``work``, copies of one sample, back and measure variances."""
        count = len(work.network.layers)
        self.variance, self.hutchinson, self.hutchinson_error = (np.full(count, np.nan) for _ in range(3))
        fixed = _VectorStore(work)
        for new in propagation.send_fixed(fixed):
            fixed.keep(new)
        drawn = _VectorStore(work)
        for group, new in propagation.rows.groups(work.indices):
            propagation.send(group, drawn)
            drawn.keep(new)
        for layer in drawn.rows:
            self.variance[layer], self.hutchinson[layer], self.hutchinson_error[layer] = _estimate_variances(
                drawn.of(layer), fixed.of(layer)
            )


class _VectorStore:
    """Stores the vectors of one sample that arrive at each layer."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._now: dict[int, tuple[Tensor, Tensor]] = {}
        self.rows: dict[int, list[tuple[Tensor, Tensor]]] = {}

    def __call__(self, step: LayerFunction, pair: Pair) -> None:
        axis = self._work.axes[self._work.network.layers[step.layer].name]
        count = self._work.copies
        self._now[step.layer] = (axis.rows(pair[0], count), axis.rows(pair[1], count))

    def keep(self, new: int) -> None:
        """Keep the first ``new`` rows of what has arrived since the last time."""
        for layer, (one, other) in self._now.items():
            self.rows.setdefault(layer, []).append((one[:new], other[:new]))
        self._now.clear()

    def of(self, layer: int) -> tuple[Tensor, Tensor] | None:
        """Return both vectors of every probe at a layer; None if none arrived.

        Their shape is (probes, elements).
        """
        if layer not in self.rows:
            return None
        ones, others = zip(*self.rows[layer], strict=True)
        return torch.cat(ones), torch.cat(others)


def _estimate_variances(
    found: tuple[Tensor, Tensor] | None, fixed: tuple[Tensor, Tensor] | None
) -> tuple[float, float, float]:
    """Return the variance of ⟨u, s⟩, Hutchinson's variance, and the error of that.

    Hutchinson's is that for the matrix E[s uᵀ] plus the fixed pairs.
    """
    assert found is not None
    u, s = found
    first, second = (u, s) if fixed is None else (torch.cat([fixed[0], u]), torch.cat([fixed[1], s]))
    known = len(first) - len(u)
    gram = first.double() @ second.double().mT
    diagonal = first.double() * second.double()
    off_diagonal, error = _estimate_product(gram * gram.mT - diagonal @ diagonal.mT, known)
    return float(gram.diagonal()[known:].var()), max(2 * off_diagonal, 0.0), 2 * error


def _estimate_product(products: Tensor, known: int) -> tuple[float, float]:
    """Return the expected product of two independent draws, and its jackknife error.

    Args:
        products: of all pairs of rows; a draw is the sum of all ``known`` rows and of one other.
        known: how many rows, from the front, are no draws.
    """
    exact, mixed, drawn = products[:known, :known], products[:known, known:], products[known:, known:]
    count = len(drawn)
    with_others = drawn.sum(1) - drawn.diagonal()
    mean = exact.sum() + 2 * mixed.sum() / count + with_others.sum() / (count * (count - 1))
    parts = 2 * mixed.sum(0) + 2 * with_others / (count - 1)  # what a draw has a part in
    return float(mean), float(parts.std() / count**0.5)


def estimate_hutchinson_variance(measured: Sequence[ProbeVariance]) -> tuple[Array, Array]:
    """Return Hutchinson's variance at each layer, and a cautious lower estimate.

    The cut whose probes have the least variance at a layer decides.

    One outlier may make it seem large, and then Hutchinson's estimator would not get a layer that it does best. So
    the lower estimate is the smaller one of two cuts, less half a standard error each, and never below 0.
    """
    variance, hutchinson, error = (
        np.array([getattr(one, name) for one in measured]) for name in ("variance", "hutchinson", "hutchinson_error")
    )
    nearest = np.where(np.isnan(variance), np.inf, variance).argsort(0)[:2]
    columns = np.arange(variance.shape[1])
    cautious = np.nanmin((hutchinson - 0.5 * error)[nearest, columns], axis=0)
    return hutchinson[nearest[0], columns], np.maximum(cautious, 0)
