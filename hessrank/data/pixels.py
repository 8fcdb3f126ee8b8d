"""Decodes one image file to floats in [0, 1], with all the bits it has.

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
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from hessrank.errors import DataError
from hessrank.files.size_limits import check_claim
from hessrank.text import one_line

Pixels = np.ndarray[Any, np.dtype[np.float32]]

_ORIENTATION = 0x0112  # the EXIF tag; 5 to 8 swap height and width
_BITS_PER_SAMPLE = 258  # a TIFF tag
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")  # of others Pillow runs programs: Ghostscript for EPS
_COLOR_16 = re.compile(r"(RGB[AX]?);16([BLN])")
_GRAY_MODES = ("1", "L", "LA", "La", "F", "I", "I;16", "I;16B", "I;16L", "I;16N")
_NATIVE, _FOREIGN = ("L", "B") if sys.byteorder == "little" else ("B", "L")


def image_shape(path: Path) -> tuple[int, int, int]:
    """Return (channels, height, width) as `read_pixels` will give them.

    There are 1 or 3 channels.

    Raises:
        DataError: this is no image that Pillow reads.
    """
    with _open_image(path) as image:
        width, height = image.size
        if image.getexif().get(_ORIENTATION, 1) >= 5:
            width, height = height, width
        return (1 if image.mode in _GRAY_MODES else 3), height, width


def read_pixels(path: Path) -> Pixels:
    """Return the image as C×H×W floats in [0, 1], upright, without transparency.

    Of several frames the first is read. An 8-bit value is divided by 255, a 16-bit one by 65535.

    Raises:
        DataError: the image is damaged, or of a depth whose range is not known.
    """
    with _open_image(path) as image:
        values = _decode(path, image)
    planes = values[None] if values.ndim == 2 else values.transpose(2, 0, 1)
    return np.array(planes, dtype=np.float32, order="C")  # a copy: Pillow's own memory is not writable


def _decode(path: Path, image: ImageFile.ImageFile) -> np.ndarray[Any, Any]:
    raw_mode = _raw_mode(image)
    if color := _COLOR_16.match(raw_mode):
        return _decode_color_16(path, color.group(1), color.group(2))
    if image.mode == "F":
        values = _turn_upright(image)
        if not (values.min() >= 0 and values.max() <= 1):  # NaN fails too
            raise DataError(f"{path}: a floating image has to be in [0, 1]; scale it, or store it as .npy")
        return values
    if image.mode.startswith("I") and raw_mode.startswith("I;16"):
        return _turn_upright(image).astype(np.float32) / 65535
    if image.mode.startswith("I") or ";16" in raw_mode or _bits(image) > 8:
        raise DataError(
            f"{path}: {_bits(image)}-bit values laid out as {raw_mode or image.mode!r} are not read; store 8 or 16 "
            "bits a channel, without transparency and not in separate planes"
        )
    return _turn_upright(image.convert("L" if image.mode in _GRAY_MODES else "RGB")).astype(np.float32) / 255


def _decode_color_16(path: Path, layout: str, order: str) -> np.ndarray[Any, Any]:
    """Decode the high and the low byte of each value and put them together."""
    swapped = {"B": "L", "L": "B", "N": _FOREIGN}[order]
    halves = []
    for raw_mode in (f"{layout};16{order}", f"{layout};16{swapped}"):
        with _open_image(path) as image:
            image.tile = [
                tile._replace(args=(raw_mode, *tile.args[1:]) if isinstance(tile.args, tuple) else raw_mode)
                for tile in image.tile
            ]
            halves.append(_turn_upright(image)[..., :3].astype(np.float32))
    high, low = halves
    return np.asarray((high * 256 + low) / 65535)


def _raw_mode(image: ImageFile.ImageFile) -> str:
    """Return how the file stores its values (``RGB;16B``).

    It is empty where Pillow does not say.
    """
    args = image.tile[0].args if image.tile else ""
    first = args[0] if isinstance(args, tuple) and args else args
    return first if isinstance(first, str) else ""


def _bits(image: ImageFile.ImageFile) -> int:
    """Return how many bits a value has, by a TIFF's tag or by Pillow's layout."""
    stated = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE)
    if stated is None:
        return 16 if ";16" in _raw_mode(image) else 8
    return max(stated) if isinstance(stated, tuple) else int(stated)


def _turn_upright(image: Image.Image) -> np.ndarray[Any, Any]:
    return np.asarray(ImageOps.exif_transpose(image))


@contextmanager
def _lift_pillows_limit() -> Iterator[None]:
    """Lift Pillow's limit on the size of images inside the block.

    It ignores the size of the file, which :mod:`hessrank.files.size_limits` does not.
    """
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


@contextmanager
def _open_image(path: Path) -> Iterator[ImageFile.ImageFile]:
    """Open an image, and explain Pillow's errors inside the block.

    Pillow decodes late, as long as the image is open.
    """
    try:
        with _lift_pillows_limit(), Image.open(path, formats=_FORMATS) as image:
            width, height = image.size
            claimed = width * height * len(image.getbands()) * np.dtype(np.float32).itemsize
            check_claim(path, claimed, f"this image of {width}×{height} pixels", error=DataError)
            yield image
    except (DataError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise DataError(f"{path}: this is not an image of a kind that is read ({', '.join(_FORMATS)})") from error
    except Exception as error:  # each of Pillow's decoders has its own
        raise DataError(f"{path}: the image is cut short or damaged: {one_line(error)}") from error
