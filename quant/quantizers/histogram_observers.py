"""Observe the distribution.

Its percentiles, or the range that rounds it best.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from hessrank.quant.quantizers.grids import range_to_grid
from hessrank.quant.quantizers.histogram import RunningHistogram
from hessrank.quant.quantizers.observers import Observer
from hessrank.quant.registries import OBSERVERS
from hessrank.quant.scheme import Scheme

TENSOR_BINS, CHANNEL_BINS = 1 << 14, 1 << 11


class HistogramObserver(Observer):
    """Base of observers with a histogram.

    It is made with the first tensor and dropped by ``reset``.
    """

    def __init__(self, scheme: Scheme, axis: int | None = None, channels: int | None = None) -> None:
        super().__init__(scheme, axis, channels)
        self.histogram: RunningHistogram | None = None

    def update(self, rows: Tensor, low: Tensor, high: Tensor) -> None:
        """Count the values."""
        super().update(rows, low, high)
        if self.histogram is None:
            bins = TENSOR_BINS if self.axis is None else CHANNEL_BINS
            self.histogram = RunningHistogram(len(rows), bins).to(rows.device)
        self.histogram.add(rows)

    def reset(self) -> None:
        """Forget everything."""
        super().reset()
        self.histogram = None


@OBSERVERS.register("percentile")
class Percentile(HistogramObserver):
    """The range that leaves 0.01 % of all values out on either side.

    The percentiles are those of all data together, from a histogram: within one of its bins (at most 1/4096 of the
    largest magnitude, 1/512 per channel) of the exact ones, and never beyond the smallest and largest value.

    Example:
        One value of 100 000 is a thousand times as large as the others, and left out:

        >>> import torch
        >>> from hessrank.quant.quantizers import Percentile
        >>> from hessrank.quant.scheme import Scheme
        >>> observer = Percentile(Scheme(8))
        >>> observer.observe(torch.cat([torch.full((99_999,), 1.0), torch.tensor([1000.0])]))
        >>> observer.range()[1].item() < 1.5
        True
    """

    percent: ClassVar[float] = 99.99

    def ends(self) -> tuple[Tensor, Tensor]:
        """Return the lower and the upper percentile."""
        assert self.histogram is not None
        share = self.percent / 100
        low, high = self.histogram.quantile(1 - share), self.histogram.quantile(share)
        return torch.maximum(low, self.low), torch.minimum(high, self.high)


@OBSERVERS.register("mse")
class MeanSquaredError(HistogramObserver):
    """The range with the least squared error ‖Q(x) − x‖² of all data.

    Clipping and rounding together.

    Candidates are fractions 2^(−i/16) of the largest range, down to 1/64: of both ends first, then of each end with
    the other kept, until neither moves. The error is taken over a histogram, a bin counting as its middle.

    Example:
        A thousand values of 1 and one of 4: levels of about 0, 1, 2 and 3 lose less than 0, 4/3, 8/3 and 4 do.

        >>> import torch
        >>> from hessrank.quant.quantizers import MeanSquaredError
        >>> from hessrank.quant.scheme import Scheme
        >>> observer = MeanSquaredError(Scheme(2))
        >>> observer.observe(torch.tensor([1.0] * 1000 + [4.0]))
        >>> [round(end.item()) for end in observer.range()]
        [0, 3]
    """

    fractions: ClassVar[tuple[float, ...]] = tuple(2 ** (-i / 16) for i in range(97))
    rounds: ClassVar[int] = 3

    def ends(self) -> tuple[Tensor, Tensor]:
        """Return the best range found."""
        low, high = self.low.clamp(max=0), self.high.clamp(min=0)
        if self.scheme.symmetric:
            high = torch.maximum(-low, high)
            return self._best([(-f * high, f * high) for f in self.fractions])
        best = self._best([(f * low, f * high) for f in self.fractions])
        for _ in range(self.rounds):
            start = best
            best = self._best([best, *((f * low, best[1]) for f in self.fractions)])
            best = self._best([best, *((best[0], f * high) for f in self.fractions)])
            if torch.equal(start[0], best[0]) and torch.equal(start[1], best[1]):
                break
        return best

    def _best(self, candidates: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """Return for each row the candidate with the least error, the first of equals."""
        errors = torch.stack([self._error(low, high) for low, high in candidates])
        best = errors.argmin(0, keepdim=True)
        lows, highs = (torch.stack(ends) for ends in zip(*candidates, strict=True))
        return lows.gather(0, best)[0], highs.gather(0, best)[0]

    def _error(self, low: Tensor, high: Tensor) -> Tensor:
        """Return Σ (Q(x) − x)² over the histogram, shape (rows,).

        For one range of each row.
        """
        assert self.histogram is not None
        edges, width = self.histogram.edges()
        middle = edges + width / 2
        scale, zero_point = (part[:, None] for part in range_to_grid(low, high, self.scheme))
        first, last = self.scheme.quant_min - zero_point, self.scheme.quant_max - zero_point
        error = (middle / scale).round_().clamp_(first, last).mul_(scale).sub_(middle).square_()
        return error.mul_(self.histogram.counts).sum(1, dtype=torch.float64)
