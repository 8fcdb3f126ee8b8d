"""``pact``: parameterized clipping (Choi et al. 2018, arXiv:1805.06085)."""

from __future__ import annotations

from torch import Tensor

from hessrank.quant.quantizers.clips import ClippedQuantizer
from hessrank.quant.quantizers.rounding import round_to_grid
from hessrank.quant.registries import QUANTIZERS


@QUANTIZERS.register("pact")
class PACT(ClippedQuantizer):
    """The clip α of an activation is learned, and the grid spans what it leaves.

    y = round(clamp(x, 0, α) / s) · s with s = α/(2^bits − 1) (eq. 1, 2), and (eq. 3)

        ∂y/∂α = 1 where x ≥ α, 0 elsewhere        ∂y/∂x = 1 where 0 < x < α, 0 elsewhere

    For activations of both signs there is a lower clip with the same gradient below it; for symmetric grids, as of
    weights, one clip ±α with ∂y/∂α = sign(x) outside. Clips are snapped to the grid, on which 0 lies. The
    parameters are the logarithms of the clips, relative to calibration. The paper decays α: add
    λ · ``regularization()`` to the loss.

    Example:
        The clip's gradient counts the values above it; stored is its logarithm, so that it comes times α = 3:

        >>> import torch
        >>> from hessrank.quant.quantizers import make_quantizer
        >>> from hessrank.quant.scheme import Scheme
        >>> quantizer = make_quantizer("pact", Scheme(2))
        >>> quantizer.set_range(torch.tensor(0.0), torch.tensor(3.0))
        >>> quantizer.enabled = True
        >>> quantizer(torch.tensor([1.75, 9.0, 12.0])).sum().backward()
        >>> round(quantizer.log_high.grad.item(), 4)
        6.0
    """

    method = "pact"

    def fake_quantize(self, x: Tensor) -> Tensor:
        """Return ``x`` clipped and on the grid."""
        low, high = self.clips()
        scale, zero_point = self.current()
        return round_to_grid(x, scale.detach(), zero_point, self.scheme, self.axis, low=low, high=high)

    def regularization(self) -> Tensor:
        """Return the sum of the squared clips, a scalar with a gradient.

        In units of the tensor squared.
        """
        low, high = self.clips()
        return high.square().sum() + (0 if self.scheme.symmetric else low.square().sum())
