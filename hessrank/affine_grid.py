"""The unsigned affine grid over a range that holds 0 (Jacob et al. 2018): integers 0 to steps, with 0 among them.

Predictions and quantizers ask here, so that a predicted error is that of the grid that a policy gives a tensor.
"""

from __future__ import annotations

import torch
from torch import Tensor

TINY = torch.finfo(torch.float32).tiny
"""The smallest scale; a range that would have a smaller one is nothing but 0."""


def affine_grid(low: Tensor, high: Tensor, steps: int | Tensor) -> tuple[Tensor, Tensor]:
    """Return scale and zero point of the grids of ``steps`` steps over [low, high].

    Args:
        low: smallest values, not above 0.
        high: largest values, not below 0; of the same shape.
        steps: 2^bits − 1, a number or a tensor that broadcasts.

    Returns:
        the scale (high − low)/steps, differentiable, or 1 for a range of nothing but 0; and the zero point, the
        integer nearest to −low/scale, as a float. Both are float32.
    """
    scale = ((high - low) / steps).float()
    scale = torch.where(scale < TINY, 1.0, scale)
    return scale, (-low.detach() / scale.detach()).round().clamp(max=steps).float()


def affine_parameters(low: float, high: float, bits: int) -> tuple[float, int]:
    """Return scale and zero point of the unsigned affine grid of ``bits`` bits over [low, high], zero on it.

    As :func:`affine_grid` does, but for numbers and in float64.

    Args:
        low: smallest value; a positive one counts as 0.
        high: largest value; a negative one counts as 0.
        bits: 2 to 16; integers run from 0 to 2^bits − 1.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    steps = 2**bits - 1
    scale = (high - low) / steps
    if scale < TINY:
        return 1.0, 0
    return scale, min(max(round(-low / scale), 0), steps)
