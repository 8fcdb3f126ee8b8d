"""One image file decoded to floats in [0, 1], with all the bits it has.

Pillow reads 16-bit gray as such but keeps only the high byte of 16-bit color. Its unpackers for little-endian
and big-endian data differ in just the byte they keep, so such an image is decoded once for each byte.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from hessrank.analysis.loading.files import one_line
from PIL import Image, ImageOps, UnidentifiedImageError

from hessrank.errors import DataError

Pixels = np.ndarray[Any, np.dtype[np.float32]]

_ORIENTATION = 0x0112  # the EXIF tag; 5 to 8 swap height and width
_COLOR_16 = re.compile(r"(RGB[AX]?);16([BLN])")
_GRAY_MODES = ("1", "L", "LA", "La", "F", "I", "I;16", "I;16B", "I;16L", "I;16N")
_NATIVE, _FOREIGN = ("L", "B") if sys.byteorder == "little" else ("B", "L")


def image_shape(path: Path) -> tuple[int, int, int]:
    """Return (channels, height, width) as `read_pixels` will give them; channels are 1 or 3.

    Raises:
        DataError: this is no image that Pillow reads.
    """
    with _opened(path) as image:
        width, height = image.size
        if image.getexif().get(_ORIENTATION, 1) >= 5:
            width, height = height, width
        return (1 if image.mode in _GRAY_MODES else 3), height, width


def read_pixels(path: Path) -> Pixels:
    """Return the image as C×H×W floats in [0, 1], turned upright; transparency is dropped.

    Of several frames the first is read. An 8-bit value is divided by 255, a 16-bit one by 65535.

    Raises:
        DataError: the image is damaged, or of a depth whose range is not known.
    """
    with _opened(path) as image:
        try:
            values = _decode(path, image)
        except (OSError, SyntaxError, ValueError, EOFError) as error:
            raise DataError(f"{path}: the image is cut short or damaged: {one_line(error)}") from error
    planes = values[None] if values.ndim == 2 else values.transpose(2, 0, 1)
    return np.ascontiguousarray(planes, dtype=np.float32)


def _decode(path: Path, image: Image.Image) -> np.ndarray[Any, Any]:
    raw_mode = _raw_mode(image)
    if color := _COLOR_16.match(raw_mode):
        return _decode_color_16(path, color.group(1), color.group(2))
    if image.mode == "F":
        return _in_unit_range(path, _upright(image))
    if image.mode.startswith("I") and raw_mode.startswith("I;16"):
        return _upright(image).astype(np.float32) / 65535
    if image.mode.startswith("I") or ";16" in raw_mode:
        raise DataError(
            f"{path}: an image of depth {raw_mode or image.mode!r} is not read; store 8 or 16 bits a channel"
        )
    return _upright(image.convert("L" if image.mode in _GRAY_MODES else "RGB")).astype(np.float32) / 255


def _decode_color_16(path: Path, layout: str, order: str) -> np.ndarray[Any, Any]:
    """Decode the high and the low byte of each value and put them together."""
    swapped = {"B": "L", "L": "B", "N": _FOREIGN}[order]
    high = _decode_as(path, f"{layout};16{order}").astype(np.uint16)
    low = _decode_as(path, f"{layout};16{swapped}")
    return (high * 256 + low).astype(np.float32) / 65535


def _decode_as(path: Path, raw_mode: str) -> np.ndarray[Any, Any]:
    with _opened(path) as image:
        image.tile = [
            tile._replace(args=(raw_mode, *tile.args[1:]) if isinstance(tile.args, tuple) else raw_mode)
            for tile in image.tile
        ]
        return _upright(image)[..., :3]


def _raw_mode(image: Image.Image) -> str:
    """Return how the file lays its values out (``RGB;16B``), empty where Pillow does not say."""
    args = image.tile[0].args if image.tile else ""
    first = args[0] if isinstance(args, tuple) and args else args
    return first if isinstance(first, str) else ""


def _upright(image: Image.Image) -> np.ndarray[Any, Any]:
    return np.asarray(ImageOps.exif_transpose(image))


def _in_unit_range(path: Path, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if not (values.min() >= 0 and values.max() <= 1):  # NaN fails too
        raise DataError(f"{path}: a floating image has to be in [0, 1]; scale it, or store it as .npy")
    return values


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        image = Image.open(path)
    except UnidentifiedImageError as error:
        raise DataError(f"{path}: this is not an image that Pillow reads") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: the image cannot be opened: {one_line(error)}") from error
    with image:
        yield image
