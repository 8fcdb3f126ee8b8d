"""Learned clips: the ends of the range are parameters, and the grid follows them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from hessrank.quant.quantizers.base import Quantizer
from hessrank.quant.quantizers.grids import range_to_grid
from hessrank.quant.scheme import Scheme


class ClippedQuantizer(Quantizer):
    """Base of methods that learn where to clip.

    The upper clip is the calibrated end of the grid times exp(log_high), the lower one that times exp(log_low): they
    keep their signs, and a clip that is 0, as behind a ReLU, stays 0. A symmetric grid has the one clip ±high.
    """

    def __init__(self, scheme: Scheme, **options: Any) -> None:
        """Make a quantizer without a range; options as ``Quantizer`` has them."""
        super().__init__(scheme, **options)
        self.log_high = nn.Parameter(torch.zeros_like(self.scale))
        if not scheme.symmetric:
            self.log_low = nn.Parameter(torch.zeros_like(self.scale))

    def clips(self) -> tuple[Tensor, Tensor]:
        """Return the lower and the upper clip, in units of the tensor.

        Of shape (1,) or (channels,).
        """
        high = (self.scheme.quant_max - self.zero_point) * self.scale * self.log_high.exp()
        if self.scheme.symmetric:
            return -high, high
        return (self.scheme.quant_min - self.zero_point) * self.scale * self.log_low.exp(), high

    def current(self) -> tuple[Tensor, Tensor]:
        """Return scale and zero point of the grid over the clips."""
        return range_to_grid(*self.clips(), self.scheme)
