"""``dsq``: differentiable soft quantization (Gong et al. 2019, arXiv:1908.05033)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from hessrank.affine_grid import TINY
from hessrank.quant.quantizers.clips import ClippedQuantizer
from hessrank.quant.quantizers.grids import across, straight_through
from hessrank.quant.quantizers.rounding import round_to_grid
from hessrank.quant.registries import QUANTIZERS
from hessrank.quant.scheme import Scheme


def soft_staircase(x: Tensor, low: Tensor, high: Tensor, alpha: Tensor, steps: int) -> Tensor:
    """Return the soft staircase from ``low`` to ``high`` (section 3.1).

    Differentiable in all its tensors.

    With Δ = (high − low)/steps, i = ⌊(x − low)/Δ⌋ and m = low + (i + ½)Δ, the middle between two levels,

        Q_S(x) = low + Δ · (i + (φ + 1)/2),   φ = tanh(k(x − m)) / (1 − α),   kΔ = log(2/α − 1)

    between low and high, and ``low`` or ``high`` beyond them. As tanh(kΔ/2) = 1 − α it is continuous. The smaller α
    in (0, 1), the steeper the stairs; towards 1 they become the identity.

    Args:
        x: values.
        low: lowest level; broadcasts with x, as do the other tensors.
        high: highest level.
        alpha: softness.
        steps: number of levels less one.
    """
    delta = ((high - low) / steps).clamp(min=TINY)
    place = (x - low) / delta
    index = place.detach().floor().clamp(0, steps - 1)
    sharpness = (2 / alpha - 1).log()
    phi = (sharpness * (place - index - 0.5)).tanh() / (1 - alpha)
    inner = low + delta * (index + (phi + 1) / 2)
    return torch.where(x <= low, low, torch.where(x >= high, high, inner))


@QUANTIZERS.register("dsq")
class DSQ(ClippedQuantizer):
    """Forward the hard levels, backward the gradient of the soft staircase.

    Its softness and clips are learned.

    y = round(clamp(x, low, high)/s) · s, and all gradients are those of ``soft_staircase`` over the ends of the grid:
    ∂y/∂x = kΔ/2 · (1 − tanh²(k(x − m)))/(1 − α) inside, 0 outside; for low, high and α by differentiating Q_S.
    α = ½ · sigmoid(logit) starts at ¼ and stays below ½ (the paper learns it under an upper bound too).
    The clips are those of ``pact``: logarithms relative to calibration, snapped to the grid straight through.

    Example:
        Values are those of the hard grid, the gradient is that of the soft one: largest between two levels, at 1.5.

        >>> import torch
        >>> from hessrank.quant.quantizers import make_quantizer
        >>> from hessrank.quant.scheme import Scheme
        >>> quantizer, x = make_quantizer("dsq", Scheme(2)), torch.tensor([1.0, 1.5, 9.0], requires_grad=True)
        >>> quantizer.set_range(torch.tensor(0.0), torch.tensor(3.0))
        >>> quantizer.enabled = True
        >>> quantizer(x).sum().backward()
        >>> [round(slope, 2) for slope in x.grad.tolist()]
        [0.57, 1.3, 0.0]
    """

    method = "dsq"

    def __init__(self, scheme: Scheme, **options: Any) -> None:
        """Make a quantizer without a range; options as ``Quantizer`` has them."""
        super().__init__(scheme, **options)
        self.logit = nn.Parameter(torch.zeros_like(self.scale))

    def alpha(self) -> Tensor:
        """Return the softness α, of shape (1,) or (channels,)."""
        return self.logit.sigmoid() / 2

    def fake_quantize(self, x: Tensor) -> Tensor:
        """Return ``x`` on the grid, with the gradient of the soft staircase."""
        scale, zero_point = (part.detach() for part in self.current())
        hard = round_to_grid(x.detach(), scale, zero_point, self.scheme, self.axis)
        if not torch.is_grad_enabled():
            return hard
        integers = (self.scheme.quant_min, self.scheme.quant_max)
        ends = [
            straight_through((integer - zero_point) * scale, clip)
            for integer, clip in zip(integers, self.clips(), strict=True)
        ]
        low, high, alpha = (across(part, self.axis, x.dim()) for part in (*ends, self.alpha()))
        wide = x if x.dtype == torch.float64 else x.float()
        soft = soft_staircase(wide, low, high, alpha, self.scheme.quant_max - self.scheme.quant_min)
        return straight_through(hard, soft.to(x.dtype))
