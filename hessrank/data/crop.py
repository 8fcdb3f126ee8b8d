"""Frames cut, and if need be scaled, to the size a network takes."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def center_crop(frame: Tensor, height: int, width: int, *, step: int = 1) -> Tensor:
    """Return the middle ``height`` × ``width`` of the last two dimensions.

    Args:
        frame: …×H×W, at least as large as what is cut out.
        height: rows to keep.
        width: columns to keep.
        step: offsets are multiples of it; 2 keeps the phase of a Bayer mosaic.
    """
    top = (frame.shape[-2] - height) // 2 // step * step
    left = (frame.shape[-1] - width) // 2 // step * step
    return frame[..., top : top + height, left : left + width]


def scale_and_crop(image: Tensor, height: int, width: int) -> Tensor:
    """Return the middle of the image, scaled to cover ``height`` × ``width``.

    Bilinear with antialiasing, so values stay in the range they had.

    Args:
        image: C×H×W, floating.
        height: rows of the result.
        width: columns of the result.
    """
    rows, columns = image.shape[-2:]
    scale = max(height / rows, width / columns)
    size = (max(height, round(rows * scale)), max(width, round(columns * scale)))
    if size != (rows, columns):
        image = F.interpolate(image[None], size=size, mode="bilinear", antialias=True, align_corners=False)[0]
    return center_crop(image, height, width)
