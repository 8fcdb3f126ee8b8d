"""Count any amount of data in a histogram of fixed size.

It is the same in whatever batches the data comes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hessrank.quant.quantizers.precision import KeepsPrecision

LOWEST_EXPONENT = -126


class RunningHistogram(KeepsPrecision):
    """Counts over (−2^e, 2^e) for each row.

    e is what the largest magnitude so far needs.

    When e grows, bins merge 2, 4, … to one, exactly as if the data had been counted on the wider range at once.
    A bin is at most 4/bins of the largest magnitude wide.

    Attributes:
        counts: int64, shape (rows, bins).
        exponent: e, int64, shape (rows, 1).
    """

    counts: Tensor
    exponent: Tensor

    def __init__(self, rows: int, bins: int) -> None:
        """Make an empty histogram of ``rows`` rows with ``bins`` bins each.

        ``bins`` is a power of two.
        """
        super().__init__()
        self.register_buffer("counts", torch.zeros(rows, bins, dtype=torch.int64), persistent=False)
        self.register_buffer("exponent", torch.full((rows, 1), LOWEST_EXPONENT), persistent=False)

    def add(self, rows: Tensor) -> None:
        """Count finite float32 values of shape (rows, n)."""
        count, bins = self.counts.shape
        largest = rows.abs().amax(1, keepdim=True)
        needed = torch.where(largest > 0, largest.frexp().exponent.long(), LOWEST_EXPONENT)
        self._widen(torch.maximum(self.exponent, needed))
        # Scaled by powers of two, nothing is rounded before the floor.
        index = torch.ldexp(rows, -self.exponent).mul_(bins // 2).floor_().long()
        index += bins // 2 + bins * torch.arange(count, device=rows.device)[:, None]
        self.counts += torch.bincount(index.flatten(), minlength=count * bins).view(count, bins)

    def _widen(self, exponent: Tensor) -> None:
        half = self.counts.shape[1] // 2
        place = torch.arange(-half, half, device=self.counts.device)
        merged = (place >> (exponent - self.exponent).clamp(max=63)) + half
        self.counts = torch.zeros_like(self.counts).scatter_add_(1, merged, self.counts)
        self.exponent = exponent

    def edges(self) -> tuple[Tensor, Tensor]:
        """Return the lower ends of the bins, and the width of a bin.

        float32, of shapes (rows, bins) and (rows, 1).
        """
        half = self.counts.shape[1] // 2
        width = torch.ldexp(torch.full_like(self.exponent, 1, dtype=torch.float32), self.exponent) / half
        return torch.arange(-half, half, device=width.device) * width, width

    def quantile(self, share: float) -> Tensor:
        """Return the value below which ``share`` of each row lies (0 to 1).

        Of shape (rows,), linear inside a bin.
        """
        cumulative = self.counts.cumsum(1).double()
        target = share * cumulative[:, -1:]
        index = torch.searchsorted(cumulative, target).clamp(max=self.counts.shape[1] - 1)
        inside = self.counts.gather(1, index).double()
        fraction = ((target - cumulative.gather(1, index) + inside) / inside.clamp(min=1)).clamp(0, 1)
        lower, width = self.edges()
        return (lower.gather(1, index) + fraction * width).squeeze(1).float()
