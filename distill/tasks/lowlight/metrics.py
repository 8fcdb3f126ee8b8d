"""How good a picture is."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from torch import Tensor

from hessrank.errors import DataError


def psnr_8bit(picture: Tensor, target: Tensor) -> float:
    """Return the peak signal-to-noise ratio in dB of two pictures rounded to 8 bits (inf if equal).

    Args:
        picture: any shape, in [0, 1] but for what is clipped.
        target: the same shape.

    Raises:
        DataError: the shapes differ, or scikit-image is not installed.
    """
    try:
        metrics: Any = importlib.import_module("skimage.metrics")
    except ModuleNotFoundError as error:
        raise DataError("the PSNR needs scikit-image: pip install 'hessrank[lowlight]'") from error
    if picture.shape != target.shape:
        raise DataError(f"pictures of shapes {tuple(picture.shape)} and {tuple(target.shape)} do not compare")
    a, b = (np.rint(x.detach().cpu().clamp(0, 1).numpy() * 255).astype(np.uint8) for x in (picture, target))
    with np.errstate(divide="ignore"):
        return float(metrics.peak_signal_noise_ratio(b, a, data_range=255))
