"""Random squares of a picture, and flips, that keep the phase of a sensor's 2×2 cells."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hessrank.errors import OptionError

Place = tuple[int, int, int, tuple[bool, bool]]
"""What :func:`bayer_crop` takes behind the picture."""


def bayer_crop(picture: NDArray[Any], row: int, column: int, size: int, flips: tuple[bool, bool]) -> NDArray[Any]:
    """Cut a square out of a mosaic (or of any picture C×H×W that belongs to one), maybe flipped.

    A flip turns a pattern such as RGGB into another unless the square starts one pixel further, at an odd
    offset: its last pixel, which becomes the first, is then at an even one. So the pattern stays, whichever.

    Args:
        picture: C×H×W.
        row: cell to start at, counted in cells of two pixels.
        column: likewise; a flipped square ends one pixel further.
        size: even side of the square, in pixels.
        flips: whether to flip (top to bottom, left to right).

    Raises:
        OptionError: ``size`` is odd or the square reaches over the picture's edge.
    """
    top, left = 2 * row + flips[0], 2 * column + flips[1]
    if size % 2 or min(row, column) < 0 or top + size > picture.shape[1] or left + size > picture.shape[2]:
        shape = "×".join(map(str, picture.shape[1:]))
        raise OptionError(f"no even square of {size} pixels at row {top}, column {left} of {shape} pixels")
    square = picture[:, top : top + size, left : left + size]
    return square[:, :: -1 if flips[0] else 1, :: -1 if flips[1] else 1]


def draw_square(shape: tuple[int, ...], size: int, rng: np.random.Generator) -> Place:
    """Return where a random square of a picture lies and how it is flipped, for :func:`bayer_crop`.

    Args:
        shape: (height, width) of the picture, each at least ``size``. A side that leaves no room for the
            pixel that a flip needs is not flipped.
        size: side of the square.
        rng: where the chance comes from; it draws row, column and the two flips, in this order.
    """
    rooms = [(side - size) // 2 for side in shape]
    row, column = (int(rng.integers(max(room, 1))) for room in rooms)
    up, left = (bool(flip and room) for flip, room in zip(rng.integers(2, size=2), rooms, strict=True))
    return row, column, size, (up, left)
