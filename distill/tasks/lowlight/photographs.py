"""Photographs to train and judge the low-light network with, where no data set is at hand.

They lie inside the wheels of scikit-image and scikit-learn, so nothing is downloaded. The simulated
camera of :mod:`hessrank.distill.tasks.lowlight.camera` takes them again in the dark.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from importlib import resources
from itertools import permutations

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from hessrank.distill.tasks.lowlight.camera import Camera, FloatArray, demosaic_bilinear, mosaic_rggb
from hessrank.distill.tasks.lowlight.network import SIZE_MULTIPLE
from hessrank.errors import DataError, OptionError, unknown_name

_FILES = {
    "astronaut": ("skimage", "data/astronaut.png"),
    "chelsea": ("skimage", "data/chelsea.png"),
    "coffee": ("skimage", "data/coffee.png"),
    "motorcycle": ("skimage", "data/motorcycle_left.png"),
    "rocket": ("skimage", "data/rocket.jpg"),
    "china": ("sklearn", "datasets/images/china.jpg"),
    "flower": ("sklearn", "datasets/images/flower.jpg"),
}
TRAINING = ("astronaut", "rocket", "china", "flower")
"""The photographs of :class:`NightPhotographs`."""
HELD_OUT = ("coffee", "chelsea")
"""The photographs of :func:`held_out`; both CC0."""
RATIOS = (100.0, 250.0, 300.0)
"""Exposure ratios of the SID data set."""
_COLOR_ORDERS = tuple(permutations(range(3)))  # the first is the photograph's own


def load_photograph(name: str) -> FloatArray:
    """Return a photograph as float32 3×H×W in [0, 1].

    Args:
        name: one of "astronaut", "chelsea", "coffee", "motorcycle", "rocket", "china", "flower".

    Raises:
        UnknownNameError: there is no such photograph.
        DataError: scikit-image or scikit-learn is not installed, or its wheel lacks the file.
    """
    if name not in _FILES:
        raise unknown_name("photograph", name, _FILES)
    package, path = _FILES[name]
    try:
        importlib.import_module(package)
        with (resources.files(package) / path).open("rb") as file, Image.open(file) as image:
            pixels = np.asarray(image.convert("RGB"), dtype=np.float32)
    except (ModuleNotFoundError, FileNotFoundError) as error:
        raise DataError(f"photograph {name!r} lies inside {package}: pip install 'hessrank[lowlight]'") from error
    return np.ascontiguousarray(pixels.transpose(2, 0, 1) / np.float32(255))


@dataclass(frozen=True)
class Night:
    """One photograph and its RAW of the night; all tensors float32 in [0, 1].

    Attributes:
        name: the photograph.
        raw: amplified, noisy mosaic 1×H×W: the network's input.
        mono: target, what a monochrome sensor would have seen by day, 1×H×W.
        rgb: target, the photograph, 3×H×W.
        naive_mono: the monochrome picture of ``naive_rgb``'s colors, 1×H×W.
        naive_rgb: ``raw`` developed without a network (bilinear demosaicing, then the camera's own
            white balance, color matrix, gamma and tone), 3×H×W.
    """

    name: str
    raw: Tensor
    mono: Tensor
    rgb: Tensor
    naive_mono: Tensor
    naive_rgb: Tensor


def held_out(*, ratio: float = 300.0, seed: int = 0, camera: Camera | None = None) -> list[Night]:
    """Return the two photographs that no training sees, whole, cropped to multiples of 32 about the middle.

    Args:
        ratio: exposure ratio (the default is the darkest of the SID data set).
        seed: of the noise; the same seed gives the same noise.
        camera: who takes them (the default camera if None).
    """
    camera = camera or Camera()
    return [_night(name, ratio, seed, camera) for name in HELD_OUT]


def _night(name: str, ratio: float, seed: int, camera: Camera) -> Night:
    rgb = load_photograph(name)
    height, width = (size // SIZE_MULTIPLE * SIZE_MULTIPLE for size in rgb.shape[1:])
    top, left = (rgb.shape[1] - height) // 2, (rgb.shape[2] - width) // 2
    rgb = rgb[:, top : top + height, left : left + width]
    linear = camera.unprocess(rgb)
    raw = camera.expose(mosaic_rggb(linear), ratio, np.random.default_rng([seed, HELD_OUT.index(name)]))
    naive = demosaic_bilinear(raw)
    pictures = (raw, camera.monochrome(linear), rgb, camera.monochrome(naive), camera.process(naive))
    return Night(name, *(_tensor(picture) for picture in pictures))


def bayer_crop(picture: FloatArray, row: int, column: int, size: int, flips: tuple[bool, bool]) -> FloatArray:
    """Cut a square out of a mosaic (or of any picture C×H×W that belongs to one), maybe flipped.

    A flip turns the pattern RGGB into another unless the square starts one pixel further, at an odd
    offset: its last pixel, which becomes the first, is then at an even one. So the result is RGGB always.

    Args:
        picture: C×H×W.
        row: Bayer cell to start at, counted in cells of two pixels.
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


class NightPhotographs(Dataset[tuple[Tensor, tuple[Tensor, Tensor]]]):
    """Random squares of the training photographs, taken in the dark: ``(raw, (mono, rgb))``.

    Item i is a function of (seed, i) alone: photograph, color order, place, flips, exposure ratio and
    noise. ``raw`` is 1×size×size, ``mono`` 1×size×size, ``rgb`` 3×size×size, all float32 in [0, 1].
    Every other square comes from a photograph whose three colors changed places: as good a scene as the
    photograph itself, and it keeps a network from learning a few photographs' colors by heart.

    Args:
        length: number of items.
        size: side of the squares, a multiple of 32.
        seed: of all randomness.
        names: photographs to take.
        camera: who takes them (the default camera if None).

    Raises:
        OptionError: ``size`` is no multiple of 32, or no photograph is named.
    """

    def __init__(
        self,
        length: int,
        *,
        size: int = 64,
        seed: int = 0,
        names: tuple[str, ...] = TRAINING,
        camera: Camera | None = None,
    ) -> None:
        if size <= 0 or size % SIZE_MULTIPLE or not names:
            raise OptionError(f"squares of {size} pixels of {len(names)} photographs: take a multiple of 32")
        self.length, self.size, self.seed = length, size, seed
        self.camera = camera or Camera()
        self._photographs = [load_photograph(name) for name in names]
        areas = np.array([rgb[0].size for rgb in self._photographs])
        self._shares = areas / areas.sum()
        self._days: dict[tuple[int, int], FloatArray] = {}

    def _day(self, photograph: int, order: int) -> FloatArray:
        """Return mosaic, monochrome and color picture stacked, 5×H×W, developed when first asked for."""
        if (photograph, order) not in self._days:
            rgb = self._photographs[photograph][list(_COLOR_ORDERS[order])]
            rgb = rgb[:, : rgb.shape[1] // 2 * 2, : rgb.shape[2] // 2 * 2]
            linear = self.camera.unprocess(rgb)
            stacked = np.concatenate((mosaic_rggb(linear), self.camera.monochrome(linear), rgb))
            self._days[photograph, order] = stacked.astype(np.float32)
        return self._days[photograph, order]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        if not 0 <= index < self.length:
            raise IndexError(index)
        rng = np.random.default_rng([self.seed, index])
        photograph = int(rng.choice(len(self._photographs), p=self._shares))
        order = int(rng.integers(1, len(_COLOR_ORDERS))) if rng.integers(2) else 0
        day = self._day(photograph, order)
        row, column = (int(rng.integers((side - self.size) // 2)) for side in day.shape[1:])
        up, left = (bool(flip) for flip in rng.integers(2, size=2))
        square = bayer_crop(day, row, column, self.size, (up, left))
        raw = self.camera.expose(square[:1], float(rng.choice(RATIOS)), rng)
        return _tensor(raw), (_tensor(square[1:2]), _tensor(square[2:]))


def _tensor(picture: FloatArray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(picture, dtype=np.float32))
