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
    """

    method = "fixed"

    def fake_quantize(self, x: Tensor) -> Tensor:
        """Return ``x`` on the calibrated grid."""
        return round_to_grid(x, self.scale, self.zero_point, self.scheme, self.axis, margin=0.5)
