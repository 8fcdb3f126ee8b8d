"""How good a picture is, on the 8-bit values that are stored and seen."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from hessrank.errors import DataError
from hessrank.requirements import install_command
from hessrank.text import shape_text

SSIM_WINDOW = 7
"""Side of the window of :func:`ssim_8bit`, in pixels."""


def psnr_8bit(picture: Tensor, target: Tensor) -> float:
    """Return the peak signal-to-noise ratio in dB of two pictures rounded to 8 bits (inf if equal).

    It is ``skimage.metrics.peak_signal_noise_ratio``; NaN in a picture gives NaN.

    Args:
        picture: any shape, in [0, 1] but for what is clipped.
        target: the same shape.

    Raises:
        DataError: the shapes differ, or scikit-image is not installed.
    """
    metrics = _checked_metrics(picture, target)
    if picture.isnan().any():
        return float("nan")
    with np.errstate(divide="ignore"):
        return float(metrics.peak_signal_noise_ratio(_rounded(target), _rounded(picture), data_range=255))


def ssim_8bit(picture: Tensor, target: Tensor) -> float:
    """Return the structural similarity (1 if equal) of two pictures rounded to 8 bits, mean over the colors.

    It is ``skimage.metrics.structural_similarity`` with its defaults, as the network's authors measure it:
    a uniform window of 7×7 pixels and sample covariances, other than in Wang et al., "Image quality
    assessment", 2004. NaN in a picture gives NaN.

    Args:
        picture: C×H×W, in [0, 1] but for what is clipped.
        target: the same shape.

    Raises:
        DataError: the shapes differ, a side is shorter than the window, or scikit-image is not installed.
    """
    metrics = _checked_metrics(picture, target)
    if min(picture.shape[-2:]) < SSIM_WINDOW:
        size = shape_text(tuple(picture.shape[-2:]))
        raise DataError(f"a picture of {size} pixels is smaller than SSIM's window, {SSIM_WINDOW}×{SSIM_WINDOW}")
    if picture.isnan().any():
        return float("nan")
    return float(metrics.structural_similarity(_rounded(target), _rounded(picture), data_range=255, channel_axis=0))


def _checked_metrics(picture: Tensor, target: Tensor) -> Any:
    """Return ``skimage.metrics``, for two pictures that compare."""
    if picture.shape != target.shape:
        raise DataError(f"pictures of shapes {tuple(picture.shape)} and {tuple(target.shape)} do not compare")
    try:
        return importlib.import_module("skimage.metrics")
    except ModuleNotFoundError as error:
        raise DataError(f"PSNR and SSIM need scikit-image: {install_command('scikit-image')}") from error


def _rounded(picture: Tensor) -> NDArray[np.uint8]:
    levels = (picture.detach().cpu().double().clamp(0, 1) * 255).round()  # to even, as numpy does
    return np.asarray(levels.numpy(), dtype=np.uint8)
