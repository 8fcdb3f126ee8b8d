"""``fixed``: the calibrated grid as it is, and the straight-through estimator."""

from __future__ import annotations

from torch import Tensor

from hessrank.quant.quantizers.base import Quantizer
from hessrank.quant.quantizers.rounding import round_to_grid
from hessrank.quant.registries import QUANTIZERS


@QUANTIZERS.register("fixed")
class Fixed(Quantizer):
    """Keep the calibrated grid; nothing is learned.

    Jacob et al. 2018, eq. 12; Bengio, Léonard, Courville 2013 for the gradient.

    y = (clamp(round(x/s) + z, quant_min, quant_max) − z) · s, and ∂y/∂x = 1 for every x that rounds to an integer
    of the grid (within half a step of its ends, as ``torch.fake_quantize_per_tensor_affine`` has it), 0 beyond.

    Example:
        A grid of two bits over [0, 3] has the levels 0, 1, 2 and 3:

        >>> import torch
        >>> from hessrank.quant.quantizers import make_quantizer
        >>> from hessrank.quant.scheme import Scheme
        >>> quantizer = make_quantizer("fixed", Scheme(2))
        >>> quantizer.set_range(torch.tensor(0.0), torch.tensor(3.0))
        >>> quantizer.enabled = True
        >>> quantizer(torch.tensor([0.4, 1.75, 9.0])).tolist()
        [0.0, 2.0, 3.0]
    """

    method = "fixed"

    def fake_quantize(self, x: Tensor) -> Tensor:
        """Return ``x`` on the calibrated grid."""
        return round_to_grid(x, self.scale, self.zero_point, self.scheme, self.axis, margin=0.5)
