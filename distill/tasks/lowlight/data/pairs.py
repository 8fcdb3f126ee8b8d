"""A frame taken in the dark and what it should have been: how a data set gives them, and what becomes of them."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hessrank.errors import DataError
from hessrank.text import shape_text

_LUMA = np.array([0.2989, 0.5870, 0.1140], dtype=np.float32)  # as the network's authors weigh it


class Pair(Protocol):
    """Two exposures of one scene, read from their files when asked for; both start with the same cell."""

    @property
    def dark(self) -> Path:
        """The file of the input."""

    @property
    def reference(self) -> Path:
        """The file of the target; pairs of one scene share it."""

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width, from the file's header."""

    def raw(self) -> NDArray[np.float32]:
        """Return the network's input: the mosaic 1×H×W, amplified, in [0, 1]."""

    def target(self) -> NDArray[Any]:
        """Return the target, as :func:`mono_and_rgb` takes it; it may take seconds."""


def mono_and_rgb(target: NDArray[Any]) -> tuple[Tensor, Tensor]:
    """Return the network's targets, float32 1×H×W and 3×H×W in [0, 1].

    Args:
        target: 4×H×W (monochrome, red, green, blue), or 3×H×W (red, green, blue): the monochrome picture is
            then 0.2989 R + 0.5870 G + 0.1140 B. Floats in [0, 1], or integers that fill their type's range.
    """
    scale = np.iinfo(target.dtype).max if np.issubdtype(target.dtype, np.integer) else 1
    values = target.astype(np.float32) / np.float32(scale)
    rgb = values[-3:]
    mono = values[:1] if len(values) > len(rgb) else np.tensordot(_LUMA[None], rgb, axes=1)
    return tensor(mono), tensor(rgb)


def tensor(picture: NDArray[Any]) -> Tensor:
    """Return a picture as a contiguous float32 tensor."""
    return torch.from_numpy(np.ascontiguousarray(picture, dtype=np.float32))


def check_size(path: Path, shape: tuple[int, ...], least: int) -> None:
    """Make sure that a square of ``least`` pixels fits into a frame of ``shape`` (height, width).

    Raises:
        DataError: it does not.
    """
    if min(shape) < least:
        raise DataError(f"{path}: it has {shape_text(shape)} pixels, too few for squares of {least}")


class Targets:
    """Targets read from their files, the last few of them kept in memory."""

    def __init__(self, capacity: int) -> None:
        """Keep nothing yet.

        Args:
            capacity: how many to keep at most; 0 reads each anew.
        """
        self._capacity = capacity
        self._kept: OrderedDict[Path, NDArray[Any]] = OrderedDict()

    def of(self, pair: Pair) -> NDArray[Any]:
        """Return the pair's target; the ones that nobody has asked for longest are forgotten."""
        if pair.reference not in self._kept:
            self._kept[pair.reference] = pair.target()
        self._kept.move_to_end(pair.reference)
        target = self._kept[pair.reference]
        while len(self._kept) > self._capacity:
            self._kept.popitem(last=False)
        return target


def read_pair(pair: Pair, targets: Targets, least: int) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """Return the pair's input and target.

    Args:
        pair: which.
        targets: where its target is, if it was read lately.
        least: pixels that height and width need to have.

    Raises:
        DataError: the frame is too small, the target is of another size, or a file cannot be read.
    """
    raw = pair.raw()
    check_size(pair.dark, raw.shape[1:], least)
    target = targets.of(pair)
    if raw.shape[1:] != target.shape[1:]:
        own, other = (shape_text(picture.shape[1:]) for picture in (raw, target))
        raise DataError(f"{pair.dark}: it has {own} pixels, but its target {pair.reference} has {other}")
    return raw, target
