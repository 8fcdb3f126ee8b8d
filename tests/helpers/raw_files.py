"""Camera RAW files made for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest


def save_dng(
    path: Path,
    counts: np.ndarray,
    pattern: bytes = b"\0\1\1\2",
    black: int = 64,
    white: int = 4095,
    orientation: int = 1,
) -> None:
    """Write the least that LibRaw takes for a DNG."""
    tifffile = pytest.importorskip("tifffile")
    tags = [
        (50706, "B", 4, b"\1\4\0\0", True),  # DNGVersion
        (50707, "B", 4, b"\1\1\0\0", True),
        (33421, "H", 2, (2, 2), True),  # the mosaic's period and colors
        (33422, "B", 4, pattern, True),
        (50708, "s", 0, "Unit test", True),
        (274, "H", 1, orientation, True),  # as in EXIF: 6 says that the camera stood on its side
        (271, "s", 0, "Unit", True),
        (272, "s", 0, "test", True),
        (50714, "H", 1, black, True),
        (50717, "H", 1, white, True),
        (50721, "2i", 9, (1, 1, 0, 1, 0, 1, 0, 1, 1, 1, 0, 1, 0, 1, 0, 1, 1, 1), True),
        (50728, "2I", 3, (1, 1, 1, 1, 1, 1), True),
    ]
    tifffile.imwrite(path, counts, photometric="CFA", extratags=tags)
