"""Photographs to train and judge the low-light network with, where no data set is at hand.

They lie inside the wheels of scikit-image and scikit-learn, so nothing is downloaded. The simulated
camera of :mod:`hessrank.distill.tasks.lowlight.camera` takes them again in the dark.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from importlib import resources
from itertools import permutations
from typing import ClassVar, Literal

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from hessrank.distill.tasks.lowlight.camera import Camera, FloatArray
from hessrank.distill.tasks.lowlight.data.pairs import tensor
from hessrank.distill.tasks.lowlight.data.pattern import checked_pattern, demosaic_bilinear, mosaic
from hessrank.distill.tasks.lowlight.data.squares import bayer_crop, draw_square
from hessrank.distill.tasks.lowlight.network import SIZE_MULTIPLE
from hessrank.errors import DataError, OptionError, unknown_name
from hessrank.requirements import install_command

_FILES = {
    "astronaut": ("skimage", "data/astronaut.png"),
    "chelsea": ("skimage", "data/chelsea.png"),
    "coffee": ("skimage", "data/coffee.png"),
    "motorcycle": ("skimage", "data/motorcycle_left.png"),
    "rocket": ("skimage", "data/rocket.jpg"),
    "china": ("sklearn", "datasets/images/china.jpg"),
    "flower": ("sklearn", "datasets/images/flower.jpg"),
}
_WHEELS = {"skimage": "scikit-image", "sklearn": "scikit-learn"}
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
        wheel = _WHEELS[package]
        raise DataError(f"photograph {name!r} lies inside {wheel}: {install_command(wheel)}") from error
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


def held_out(
    *, ratio: float = 300.0, seed: int = 0, camera: Camera | None = None, pattern: str = "RGGB"
) -> list[Night]:
    """Return the two photographs that no training sees, whole, cropped to multiples of 32 about the middle.

    Args:
        ratio: exposure ratio (the default is the darkest of the SID data set).
        seed: of the noise; the same seed gives the same noise.
        camera: who takes them (the default camera if None).
        pattern: its color filters.

    Raises:
        UnknownNameError: there is no such pattern.
        DataError: scikit-image is not installed.
    """
    camera = camera or Camera()
    return [_night(name, ratio, seed, camera, pattern) for name in HELD_OUT]


def _night(name: str, ratio: float, seed: int, camera: Camera, pattern: str) -> Night:
    rgb = load_photograph(name)
    height, width = (size // SIZE_MULTIPLE * SIZE_MULTIPLE for size in rgb.shape[1:])
    top, left = (rgb.shape[1] - height) // 2, (rgb.shape[2] - width) // 2
    rgb = rgb[:, top : top + height, left : left + width]
    linear = camera.unprocess(rgb)
    rng = np.random.default_rng([seed, HELD_OUT.index(name)])
    raw = camera.expose(mosaic(linear, pattern), ratio, rng)
    naive = demosaic_bilinear(raw, pattern)
    pictures = (raw, camera.monochrome(linear), rgb, camera.monochrome(naive), camera.process(naive))
    return Night(name, *(tensor(picture) for picture in pictures))


class NightPhotographs(Dataset[tuple[Tensor, tuple[Tensor, Tensor]]]):
    """Random squares of the training photographs, taken in the dark: ``(raw, (mono, rgb))``.

    Item i is a function of (seed, i) alone: photograph, color order, place, flips, exposure ratio and
    noise; there is one for any i ≥ 0, beyond the length too. ``raw`` is 1×size×size, ``mono`` 1×size×size,
    ``rgb`` 3×size×size, all float32 in [0, 1].
    Every other square comes from a photograph whose three colors changed places: as good a scene as the
    photograph itself, and it keeps a network from learning a few photographs' colors by heart.

    Args:
        length: number of items in an epoch.
        size: side of the squares, a multiple of 32.
        seed: of all randomness.
        names: photographs to take.
        camera: who takes them (the default camera if None).
        pattern: its color filters.

    Raises:
        OptionError: ``size`` is no multiple of 32 or larger than a photograph, or no photograph is named.
        UnknownNameError: there is no such photograph or pattern.
        DataError: scikit-image or scikit-learn is not installed.
    """

    endless: ClassVar[Literal[True]] = True

    def __init__(
        self,
        length: int,
        *,
        size: int = 64,
        seed: int = 0,
        names: tuple[str, ...] = TRAINING,
        camera: Camera | None = None,
        pattern: str = "RGGB",
    ) -> None:
        if size <= 0 or size % SIZE_MULTIPLE or not names:
            raise OptionError(f"squares of {size} pixels of {len(names)} photographs: take a multiple of 32")
        self.length, self.size, self.seed = length, size, seed
        self.camera, self.pattern = camera or Camera(), checked_pattern(pattern)
        self._photographs = [load_photograph(name) for name in names]
        least = min(min(rgb.shape[1:]) for rgb in self._photographs)
        if size > least:
            raise OptionError(f"squares of {size} pixels: a photograph has {least} only; take smaller ones")
        areas = np.array([rgb[0].size for rgb in self._photographs])
        self._shares = areas / areas.sum()
        self._days: dict[tuple[int, int], FloatArray] = {}

    def _day(self, photograph: int, order: int) -> FloatArray:
        """Return mosaic, monochrome and color picture stacked, 5×H×W, developed when first asked for."""
        if (photograph, order) not in self._days:
            rgb = self._photographs[photograph][list(_COLOR_ORDERS[order])]
            rgb = rgb[:, : rgb.shape[1] // 2 * 2, : rgb.shape[2] // 2 * 2]
            linear = self.camera.unprocess(rgb)
            stacked = np.concatenate((mosaic(linear, self.pattern), self.camera.monochrome(linear), rgb))
            self._days[photograph, order] = stacked.astype(np.float32)
        return self._days[photograph, order]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        if index < 0:
            raise IndexError(index)
        rng = np.random.default_rng([self.seed, index])
        photograph = int(rng.choice(len(self._photographs), p=self._shares))
        order = int(rng.integers(1, len(_COLOR_ORDERS))) if rng.integers(2) else 0
        day = self._day(photograph, order)
        square = bayer_crop(day, *draw_square(day.shape[1:], self.size, rng))
        raw = self.camera.expose(square[:1], float(rng.choice(RATIOS)), rng)
        return tensor(raw), (tensor(square[1:2]), tensor(square[2:]))
