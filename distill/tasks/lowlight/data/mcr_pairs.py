"""Frames of the MCR data set: Dong et al., "Abandoning the Bayer-Filter to See in the Dark", CVPR 2022.

A color camera (files ``C…``) and a monochrome one (``M…``) took 498 scenes with eight shutters each:
1024 rows of 1280 pixels, 8 bits, mosaic RGGB. The published pictures are ``.tif`` and ``.jpg`` files; the
sensors' own bytes are ``.raw`` files.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hessrank.data.pixels import image_shape, read_pixels
from hessrank.data.raw.exposure import expose
from hessrank.data.raw.mcr_frames import COLUMNS, ROWS, McrFrame, check_frame_size
from hessrank.data.sample_folder import MCR, kind_of
from hessrank.distill.tasks.lowlight.camera import FloatArray
from hessrank.distill.tasks.lowlight.data.pattern import demosaic_bilinear
from hessrank.errors import DataError
from hessrank.text import shape_text

_GAMMA = 2.2


@dataclass(frozen=True)
class McrPair:
    """A frame, and both cameras' frames of the same scene with its longest shutter.

    A :class:`~hessrank.distill.tasks.lowlight.data.pairs.Pair`, of which rows and columns may be left out.

    Attributes:
        scene: number of the scene.
        dark: the color camera's frame.
        reference: the color picture: an image, or a ``.raw`` file that :func:`develop_gray_world` develops.
        mono: the monochrome camera's frame.
        gain: the longest shutter divided by that of ``dark``.
        top: first row.
        left: first column.
        right: column behind the last; None for all.
    """

    scene: int
    dark: Path
    reference: Path
    mono: Path
    gain: float
    top: int = 0
    left: int = 0
    right: int | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of what is left."""
        rows, columns = (ROWS, COLUMNS) if kind_of(self.dark) == MCR else image_shape(self.dark)[1:]
        return len(range(rows)[self.top :]), len(range(columns)[self.left : self.right])

    def raw(self) -> NDArray[np.float32]:
        """Return ``raw / 255 · gain``, clipped to 1, 1×H×W."""
        return self._window(_gray(self.dark, self.gain))

    def target(self) -> NDArray[np.float32]:
        """Return the monochrome and the color picture, 4×H×W in [0, 1].

        Raises:
            DataError: a file is damaged, or they differ in size.
        """
        mono, rgb = _gray(self.mono, 1.0), _color(self.reference)
        if mono.shape[1:] != rgb.shape[1:]:
            own, other = (shape_text(picture.shape[1:]) for picture in (mono, rgb))
            raise DataError(f"{self.mono}: it has {own} pixels, but {self.reference} has {other}")
        return self._window(np.concatenate((mono, rgb)))

    def _window(self, picture: NDArray[np.float32]) -> NDArray[np.float32]:
        return picture[:, self.top :, self.left : self.right]


def develop_gray_world(mosaic: FloatArray) -> FloatArray:
    """Return a simple picture 3×H×W in [0, 1] of an RGGB mosaic 1×H×W.

    Bilinear demosaicing; gains of red and blue that make their means that of green ("gray world": Buchsbaum,
    "A spatial processor model for object colour perception", 1980); clipped to 1; a gamma of 2.2.
    """
    rgb = demosaic_bilinear(mosaic)
    means = np.maximum(rgb.mean(axis=(1, 2), keepdims=True), 1e-6)  # a black frame stays black
    return np.asarray(np.clip(rgb * (means[1] / means), 0.0, 1.0) ** (1.0 / _GAMMA))


def _gray(path: Path, gain: float) -> NDArray[np.float32]:
    """Read a mosaic or a monochrome frame, 1×H×W."""
    if kind_of(path) == MCR:
        check_frame_size(path)
        return McrFrame(path, gain).read()[None]
    values = read_pixels(path)
    if len(values) != 1:
        raise DataError(f"{path}: it has colors; a mosaic or a monochrome frame has one value a pixel")
    return expose(values, black=0.0, white=1.0, gain=gain)


def _color(path: Path) -> NDArray[np.float32]:
    """Read or develop a color picture, 3×H×W."""
    if kind_of(path) == MCR:
        return develop_gray_world(_gray(path, 1.0)).astype(np.float32)
    values = read_pixels(path)
    if len(values) != 3:
        raise DataError(f"{path}: it has no colors, but is the target of the color picture")
    return values
