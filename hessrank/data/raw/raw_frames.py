"""RAW frames as samples 1×H×W in [0, 1], the Bayer mosaic as it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from hessrank.data.crop import center_crop
from hessrank.errors import DataError
from hessrank.text import shape_text


class Frame(Protocol):
    """A RAW file whose size is known and whose values can be read."""

    @property
    def path(self) -> Path:
        """The file."""

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""

    @property
    def gain(self) -> float:
        """The amplification that `read` applies."""

    def read(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Return the exposed values H×W, in [0, 1]."""


class RawSamples:
    """Frames of one size, read when they are asked for.

    They are cut at even offsets, so that the mosaic stays in phase.
    """

    def __init__(self, frames: Sequence[Frame], input_shape: tuple[int, ...] | None) -> None:
        """Compare the frames' sizes with each other and with ``input_shape``.

        Args:
            frames: the files, one a sample.
            input_shape: (1, height, width) of a sample; None keeps the frames' own.

        Raises:
            DataError: ``input_shape`` is no shape of a mosaic or larger than a frame, or it is not given and the
                frames differ in size.
        """
        self._frames = list(frames)
        self._size = _find_common_size(frames) if input_shape is None else _check_size(input_shape, frames)
        cropped = any(frame.shape != self._size for frame in frames)
        self.processing = [f"center-cropped to {shape_text(self._size)} at even offsets"] if cropped else []

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> Tensor:
        mosaic = torch.from_numpy(self._frames[index].read())[None]
        return center_crop(mosaic, *self._size, step=2).contiguous()


def _check_size(shape: tuple[int, ...], frames: Sequence[Frame]) -> tuple[int, int]:
    if len(shape) != 3 or shape[0] != 1:
        raise DataError(f"RAW files give 1×H×W, but --input-shape is {shape_text(shape)}; give arrays instead")
    for frame in frames:
        if frame.shape[0] < shape[1] or frame.shape[1] < shape[2]:
            raise DataError(
                f"{frame.path}: it is {shape_text(frame.shape)}, smaller than --input-shape {shape_text(shape)}"
            )
    return shape[1], shape[2]


def _find_common_size(frames: Sequence[Frame]) -> tuple[int, int]:
    first, *others = frames
    for frame in others:
        if frame.shape != first.shape:
            raise DataError(
                f"the frames differ in size: {first.path} is {shape_text(first.shape)} and {frame.path} is "
                f"{shape_text(frame.shape)}; give the size to crop them to, --input-shape 1,512,512"
            )
    return first.shape
