"""Color filter patterns: what the four pixels of a sensor's cell see, taking a mosaic and filling it in.

A pattern is named by its cell's letters, row by row: in ``RGGB`` red lies at even rows and columns.
Letters are R, G, B, Y (a yellow filter, which passes red and green), and W or C (none: clear glass).
Pictures are linear, 3×H×W, mosaics 1×H×W.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hessrank.distill.tasks.lowlight.camera import FloatArray
from hessrank.errors import DataError, unknown_name

_SHARES = {  # of red, green and blue in what a pixel sees; white gives 1 behind every filter
    "R": (1.0, 0.0, 0.0),
    "G": (0.0, 1.0, 0.0),
    "B": (0.0, 0.0, 1.0),
    "Y": (0.5, 0.5, 0.0),
    "W": (0.25, 0.5, 0.25),
    "C": (0.25, 0.5, 0.25),
}
_PLACES = ((0, 0), (0, 1), (1, 0), (1, 1))


def shifted(pattern: str, row: int, column: int) -> str:
    """Return the pattern that is left of ``pattern`` when so many rows and columns are cut off."""
    return "".join(pattern[(i + row) % 2 * 2 + (j + column) % 2] for i, j in _PLACES)


PATTERNS = tuple(shifted(cell, *place) for cell in ("RGGB", "RYYB", "RCCB", "RWWB", "RGBW") for place in _PLACES)
"""Patterns that are built, each in its four phases; any other four of the letters will do too."""


def checked_pattern(name: str) -> str:
    """Return ``name``, once it is known to be a pattern.

    Raises:
        UnknownNameError: it is not four of the letters R, G, B, Y, W, C; the message names the nearest.
    """
    if len(name) != len(_PLACES) or not set(name) <= set(_SHARES):
        raise unknown_name("color filter pattern", name, PATTERNS)
    return name


def align(found: str, wanted: str) -> tuple[int, int] | None:
    """Return how many rows and columns (0 or 1) to cut off a mosaic ``found`` to see ``wanted``; None if none.

    The four patterns RGGB, GRBG, GBRG and BGGR are one mosaic in different phases.
    """
    return next((place for place in _PLACES if shifted(found, *place) == wanted), None)


def mosaic(linear: FloatArray, pattern: str = "RGGB") -> FloatArray:
    """Return what a sensor with these filters sees, 1×H×W, of a linear picture 3×H×W.

    Args:
        linear: light in red, green and blue at every pixel.
        pattern: its color filters.

    Raises:
        DataError: H or W is odd, so that the last cells would be cut.
        UnknownNameError: there is no such pattern.
    """
    _, height, width = linear.shape
    if height % 2 or width % 2:
        raise DataError(f"a mosaic needs an even height and width, got {height}×{width}")
    seen = np.empty_like(linear[:1])
    for (row, column), letter in zip(_PLACES, checked_pattern(pattern), strict=True):
        shares = ((share, plane) for share, plane in zip(_SHARES[letter], linear, strict=True) if share)
        seen[0, row::2, column::2] = sum(share * plane[row::2, column::2] for share, plane in shares)
    return seen


def demosaic_bilinear(mosaic: FloatArray, pattern: str = "RGGB") -> FloatArray:
    """Return the picture 3×H×W of a mosaic 1×H×W, what a filter did not cover averaged from the nearest it did.

    Yellow and clear pixels are taken apart into red, green and blue by least squares, which is exact where
    the pattern has three kinds of filters that differ; noise grows by it.

    Raises:
        UnknownNameError: there is no such pattern.
    """
    letters = sorted(set(checked_pattern(pattern)), key=list(_SHARES).index)
    planes = np.stack([_filled(mosaic[0], _covered(pattern, letter, mosaic[0].shape)) for letter in letters])
    return np.tensordot(np.linalg.pinv([_SHARES[letter] for letter in letters]), planes, axes=1)


def _covered(pattern: str, letter: str, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return which pixels lie behind the filter ``letter``."""
    cell = np.array([own == letter for own in pattern]).reshape(2, 2)
    return cell[np.arange(shape[0])[:, None] % 2, np.arange(shape[1]) % 2]


def _filled(plane: FloatArray, covered: NDArray[np.bool_]) -> FloatArray:
    kernel = np.array([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]])

    def summed(values: FloatArray) -> FloatArray:
        # "mirror" does not repeat the edge, which keeps the phase beyond it
        return np.asarray(ndimage.convolve(values, kernel, mode="mirror"))

    # in float64, as the kernel is
    nearby = summed(np.where(covered, plane, 0.0).astype(float)) / summed(covered.astype(float))
    return np.where(covered, plane, nearby)
