"""Observe the values of calibration, and find the range of a grid.

The state of an observer does not grow with the data. Values are taken as float32; a NaN or an infinite one is an
error, since no grid holds it and no range that was derived from it would mean anything.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from hessrank.errors import ModelError
from hessrank.quant.quantizers.precision import KeepsPrecision
from hessrank.quant.registries import OBSERVERS
from hessrank.quant.scheme import Scheme


class Observer(KeepsPrecision):
    """Base of all observers; by itself it keeps the smallest and the largest value.

    Attributes:
        scheme: what the range is for.
        axis: which axis of the tensor counts the channels; None for one range.
        low: smallest value so far, shape (1,) or (channels,).
        high: largest value so far.
        seen: how many tensors went by.
    """

    low: Tensor
    high: Tensor

    def __init__(self, scheme: Scheme, axis: int | None = None, channels: int | None = None) -> None:
        super().__init__()
        self.scheme, self.axis, self.channels = scheme, axis, channels
        self.seen = 0
        # Not persistent: a checkpoint holds grids, not what they were found with.
        self.register_buffer("low", torch.zeros(channels or 1), persistent=False)
        self.register_buffer("high", torch.zeros(channels or 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Observe ``x`` and return it."""
        self.observe(x)
        return x

    @torch.no_grad()
    def observe(self, x: Tensor) -> None:
        """Take a tensor into account.

        Raises:
            ModelError: it has a NaN or infinite value, no elements, or another number of channels.
        """
        if x.numel() == 0:
            raise ModelError(f"a tensor of shape {tuple(x.shape)} has no values to calibrate with")
        rows = x.detach().float()
        rows = rows.reshape(1, -1) if self.axis is None else rows.movedim(self.axis, 0).flatten(1)
        if self.axis is not None and len(rows) != self.channels:
            raise ModelError(
                f"a tensor of shape {tuple(x.shape)} has {len(rows)} channels along axis {self.axis}, "
                f"its quantizer {self.channels}"
            )
        low, high = rows.aminmax(dim=1)
        if not bool((low.isfinite() & high.isfinite()).all()):
            raise _not_finite(rows)
        self.update(rows, low, high)
        self.seen += 1

    def update(self, rows: Tensor, low: Tensor, high: Tensor) -> None:
        """Take finite values into account: float32 of shape (1 or channels, n).

        With each row's ends.
        """
        self.low = torch.minimum(self.low, low) if self.seen else low
        self.high = torch.maximum(self.high, high) if self.seen else high

    def range(self) -> tuple[Tensor, Tensor]:
        """Return the ends of the range, of shape () or (channels,).

        Raises:
            ModelError: nothing was observed.
        """
        if not self.seen:
            raise ModelError("nothing was observed: run the calibration data through the network first")
        low, high = self.ends()
        return (low[0], high[0]) if self.axis is None else (low, high)

    def ends(self) -> tuple[Tensor, Tensor]:
        """Return the ends of the range, of shape (1,) or (channels,)."""
        return self.low, self.high

    def reset(self) -> None:
        """Forget everything."""
        self.seen = 0

    def extra_repr(self) -> str:
        """Say how much was seen."""
        return f"seen={self.seen}"


def _not_finite(rows: Tensor) -> ModelError:
    bad = rows[~rows.isfinite()]
    return ModelError(
        f"{bad.numel()} of {rows.numel()} values are NaN or infinite, the first {bad[0].item()}: no grid holds "
        "them; leave this tensor unquantized, or mend the network or its data"
    )


@OBSERVERS.register("minmax")
class MinMax(Observer):
    """Smallest and largest value of all.

    Example:
        >>> import torch
        >>> from hessrank.quant.quantizers import MinMax
        >>> from hessrank.quant.scheme import Scheme
        >>> observer = MinMax(Scheme(8))
        >>> for batch in ([-1.0, 2.0], [0.0, 4.0]):
        ...     observer.observe(torch.tensor(batch))
        >>> [end.item() for end in observer.range()]
        [-1.0, 4.0]
    """


@OBSERVERS.register("moving-average")
class MovingAverage(Observer):
    """Moving average of each batch's smallest and largest value.

    0.9 · so far + 0.1 · batch; the first counts whole.

    Jacob et al. 2018, section 3.1; the momentum is that of MQBench's EMA observers.

    Example:
        The first batch ends at 1, the second at 11: 0.9 · 1 + 0.1 · 11 = 2.

        >>> import torch
        >>> from hessrank.quant.quantizers import MovingAverage
        >>> from hessrank.quant.scheme import Scheme
        >>> observer = MovingAverage(Scheme(8))
        >>> for batch in ([0.0, 1.0], [0.0, 11.0]):
        ...     observer.observe(torch.tensor(batch))
        >>> [round(end.item(), 4) for end in observer.range()]
        [0.0, 2.0]
    """

    momentum: ClassVar[float] = 0.1

    def update(self, rows: Tensor, low: Tensor, high: Tensor) -> None:
        """Move both ends towards the batch's."""
        weight = self.momentum if self.seen else 1.0
        self.low, self.high = torch.lerp(self.low, low, weight), torch.lerp(self.high, high, weight)


@OBSERVERS.register("mean-magnitude")
class MeanMagnitude(Observer):
    """LSQ's own start: a step of 2·mean|x|/√quant_max, as the range it implies.

    Esser et al. 2020, section 2.1.

    On an affine grid quant_max stands for half of its steps, and the range is cut where no values are.

    Example:
        Two bits have the levels −s, 0 and s, so that the range is ±s = ±2 · mean|x|; the −9 is cut:

        >>> import torch
        >>> from hessrank.quant.quantizers import MeanMagnitude
        >>> from hessrank.quant.scheme import Scheme
        >>> observer = MeanMagnitude(Scheme(2, symmetric=True))
        >>> observer.observe(torch.tensor([-9.0, 1.0, 1.0, 1.0]))
        >>> [end.item() for end in observer.range()]
        [-6.0, 6.0]
    """

    def __init__(self, scheme: Scheme, axis: int | None = None, channels: int | None = None) -> None:
        super().__init__(scheme, axis, channels)
        self.register_buffer("total", torch.zeros(channels or 1, dtype=torch.float64), persistent=False)
        self.total: Tensor
        self.count = 0

    def update(self, rows: Tensor, low: Tensor, high: Tensor) -> None:
        """Add up the magnitudes."""
        super().update(rows, low, high)
        self.total = self.total + rows.abs().sum(1, dtype=torch.float64)
        self.count += rows.shape[1]

    def ends(self) -> tuple[Tensor, Tensor]:
        """Return ±2·mean|x|·√quant_max, cut at 0 where the values have one sign."""
        steps = (self.scheme.quant_max - self.scheme.quant_min) / 2
        reach = (2 * self.total / self.count * steps**0.5).float()
        return torch.where(self.low < 0, -reach, 0.0), torch.where(self.high > 0, reach, 0.0)

    def reset(self) -> None:
        """Forget everything."""
        super().reset()
        self.total.zero_()
        self.count = 0
