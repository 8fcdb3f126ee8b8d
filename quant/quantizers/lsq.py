"""``lsq``: learned step size (Esser et al. 2020, arXiv:1902.08153)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from hessrank.affine_grid import TINY
from hessrank.quant.quantizers.base import Quantizer
from hessrank.quant.quantizers.grids import snap_scale
from hessrank.quant.quantizers.rounding import round_to_grid
from hessrank.quant.registries import QUANTIZERS
from hessrank.quant.scheme import Scheme


@QUANTIZERS.register("lsq")
class LSQ(Quantizer):
    """Learn the step size s.

    An affine grid keeps the integer zero point z of its calibration.

    y = (clamp(round(x/s) + z, quant_min, quant_max) − z) · s, and with Q_N = z − quant_min, Q_P = quant_max − z
    (eq. 3 and 5)

        ∂y/∂s = round(x/s) − x/s  where −Q_N < x/s < Q_P,  −Q_N below,  Q_P above
        ∂y/∂x = 1                 where −Q_N < x/s < Q_P,  0 elsewhere

    summed over the tensor, or the channel, of N elements, and multiplied by g = 1/√(N · quant_max) (section 2.2).
    What is stored is the logarithm ``log_gain``, s = scale · exp(log_gain), as in TQT (Jain et al. 2019): a raw s may
    be driven below 0 by Adam. Its gradient is s times that of s.
    The step starts at the calibrated range; observer ``mean-magnitude`` is the start of the paper, 2·mean|x|/√Q_P.

    Example:
        The gradient of the step is 2 − 1.75 inside and 3 above the grid, times g = 1/√(2 · 3):

        >>> import torch
        >>> from hessrank.quant.quantizers import make_quantizer
        >>> from hessrank.quant.scheme import Scheme
        >>> quantizer = make_quantizer("lsq", Scheme(2))
        >>> quantizer.set_range(torch.tensor(0.0), torch.tensor(3.0))
        >>> quantizer.enabled = True
        >>> quantizer(torch.tensor([1.75, 9.0])).sum().backward()
        >>> round(quantizer.log_gain.grad.item() * 6**0.5, 4)
        3.25
    """

    method = "lsq"

    def __init__(self, scheme: Scheme, **options: Any) -> None:
        """Make a quantizer without a range; options as ``Quantizer`` has them."""
        super().__init__(scheme, **options)
        self.log_gain = nn.Parameter(torch.zeros_like(self.scale))

    def current(self) -> tuple[Tensor, Tensor]:
        """Return the learned scale and the calibrated zero point."""
        scale = (self.scale * self.log_gain.exp()).clamp(min=TINY)
        return snap_scale(scale, self.scheme), self.zero_point

    def fake_quantize(self, x: Tensor) -> Tensor:
        """Return ``x`` on the learned grid."""
        return round_to_grid(x, *self.current(), self.scheme, self.axis, stretch=True, damping=self.damping(x))

    def damping(self, x: Tensor) -> float:
        """Return g = 1/√(N · quant_max) for ``x``.

        N is how many of its elements share a scale.
        """
        return float((x.numel() / self.scale.numel() * self.scheme.quant_max) ** -0.5) if x.numel() else 1.0
