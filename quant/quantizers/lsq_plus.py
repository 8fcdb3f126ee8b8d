"""``lsq+``: learned step size and offset (Bhalgat et al. 2020, arXiv:2004.09576)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from hessrank.quant.quantizers.lsq import LSQ
from hessrank.quant.quantizers.rounding import round_to_grid
from hessrank.quant.registries import QUANTIZERS
from hessrank.quant.scheme import Scheme


@QUANTIZERS.register("lsq+")
class LSQPlus(LSQ):
    """Learn the step size s and the offset β.

    β is the value of the smallest integer.

    y = clamp(round((x − β)/s), n, p) · s + β with n = 0 and p = 2^bits − 1 (section 3.1), and

        ∂y/∂s = round((x − β)/s) − (x − β)/s  inside,  n below,  p above
        ∂y/∂β = 0                             inside,  1 outside
        ∂y/∂x = 1                             inside,  0 outside

    both times LSQ's g. Unlike the paper's, the offset is used as the nearest integer zero point, z = round(−β/s)
    within the grid, so that 0 stays exact and an integer kernel can run it; its gradient goes straight
    through that rounding. Stored are s = scale · exp(log_gain) and ``offset``, β being the calibrated lower end plus
    offset times the calibrated width. A symmetric grid has no offset, and then this is LSQ, as in the paper's
    configurations for weights.

    Example:
        The grid over [−3, 0] goes up by a third of its width, so that 0 is not its integer 3 any more, but 2:

        >>> import torch
        >>> from hessrank.quant.quantizers import make_quantizer
        >>> from hessrank.quant.scheme import Scheme
        >>> quantizer = make_quantizer("lsq+", Scheme(2))
        >>> quantizer.set_range(torch.tensor(-3.0), torch.tensor(0.0))
        >>> _ = quantizer.offset.data.fill_(1 / 3)
        >>> quantizer.grid().zero_point.item()
        2
    """

    method = "lsq+"

    def __init__(self, scheme: Scheme, **options: Any) -> None:
        """Make a quantizer without a range; options as ``Quantizer`` has them."""
        super().__init__(scheme, **options)
        if not scheme.symmetric:
            self.offset = nn.Parameter(torch.zeros_like(self.scale))

    def current(self) -> tuple[Tensor, Tensor]:
        """Return the learned scale and the zero point nearest to the learned offset."""
        scale, zero_point = super().current()
        if self.scheme.symmetric:
            return scale, zero_point
        exact = (-self._lower() / scale).detach().round()
        return scale, exact.clamp(self.scheme.quant_min, self.scheme.quant_max).to(torch.int32)

    def fake_quantize(self, x: Tensor) -> Tensor:
        """Return ``x`` on the learned grid."""
        if self.scheme.symmetric:
            return super().fake_quantize(x)
        scale, zero_point = self.current()
        low = self._lower()
        high = low + self.scheme.quant_max * scale
        return round_to_grid(
            x, scale, zero_point, self.scheme, self.axis, low=low, high=high, damping=self.damping(x)
        )

    def _lower(self) -> Tensor:
        """Return β, whose integer is 0."""
        return (self.scheme.quant_max * self.offset - self.zero_point) * self.scale
