"""``dorefa``: weights through tanh (Zhou et al. 2016, arXiv:1606.06160)."""

from __future__ import annotations

import torch
from torch import Tensor

from hessrank.quant.quantizers.base import Quantizer
from hessrank.quant.quantizers.grids import across
from hessrank.quant.quantizers.rounding import round_to_grid
from hessrank.quant.registries import QUANTIZERS


@QUANTIZERS.register("dorefa")
class DoReFa(Quantizer):
    """Squeeze weights through tanh and stretch them before rounding.

    They are stretched to the whole range.

    y = Q(c · tanh(w)/max|tanh(w)|) (eq. 9), with the maximum over the tensor or the channel. The gradient is the
    chain rule through tanh and the maximum, with ∂Q/∂(its argument) = 1 (eq. 5). In the paper c = 1, which makes
    the weights of all layers equally large and needs batch norm behind them; here c is the largest calibrated
    magnitude, so that they keep their size. The paper's grid for weights has no 0; this one has.
    Activations, as in the paper, are clipped and rounded: to the calibrated range instead of [0, 1], with gradient 1
    inside.

    Example:
        Before it rounds, tanh has made small weights larger beside the largest:

        >>> import torch
        >>> from hessrank.quant.quantizers import make_quantizer
        >>> from hessrank.quant.scheme import Scheme
        >>> quantizer = make_quantizer("dorefa", Scheme(4, symmetric=True), weight=True)
        >>> quantizer.set_range(torch.tensor(-7.0), torch.tensor(7.0))
        >>> [round(w) for w in quantizer.to_grid(torch.tensor([0.5, 1.0, -7.0])).tolist()]
        [3, 5, -7]
    """

    method = "dorefa"
    fills_grid = True

    def to_grid(self, x: Tensor) -> Tensor:
        """Return c · tanh(x)/max|tanh(x)| of a weight; an activation as it is.

        In float32 at least.
        """
        if not self.weight:
            return x
        squeezed = (x if x.dtype == torch.float64 else x.float()).tanh()
        others = tuple(d for d in range(x.dim()) if self.axis is None or d != self.axis % x.dim())
        largest = squeezed.abs().amax(others, keepdim=True)
        reach = (self.scheme.quant_max - self.scheme.quant_min) / 2 * self.scale
        return squeezed / torch.where(largest > 0, largest, 1.0) * across(reach, self.axis, x.dim())

    def fake_quantize(self, x: Tensor) -> Tensor:
        """Return ``x``, or its transform, on the calibrated grid."""
        y = round_to_grid(self.to_grid(x), self.scale, self.zero_point, self.scheme, self.axis, margin=0.5)
        return y.to(x.dtype)

    def covered(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Return [−c, c] for a weight, on an affine grid too: tanh stretches both sides."""
        if not self.weight:
            return low, high
        reach = torch.maximum(-low, high).clamp(min=0)
        return -reach, reach
