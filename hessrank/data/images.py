"""A folder of photographs as samples C×H×W in [0, 1]."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from hessrank.data.crop import scale_and_crop
from hessrank.data.pixels import image_shape, read_pixels
from hessrank.errors import DataError
from hessrank.text import shape_text

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


class ImageSamples:
    """Images of one shape, decoded when they are asked for."""

    def __init__(self, paths: Sequence[Path], input_shape: tuple[int, ...] | None) -> None:
        """Look at every image's header.

        Args:
            paths: the images, one a sample.
            input_shape: (channels, height, width) of a sample, channels 1 or 3; None keeps the images' own.

        Raises:
            DataError: an image cannot be read, ``input_shape`` is no shape of an image, or it is not given and
                the images differ in size.
        """
        self._paths = list(paths)
        shapes = {path: image_shape(path) for path in paths}
        self._shape = _choose_shape(shapes, input_shape)
        self.processing = _describe_processing(list(shapes.values()), self._shape)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Tensor:
        channels, height, width = self._shape
        image = torch.from_numpy(read_pixels(self._paths[index]))
        if image.shape[0] < channels:
            image = image.expand(channels, -1, -1).clone()
        elif image.shape[0] > channels:
            image = torch.einsum("c,chw->hw", torch.tensor(_LUMA), image)[None]
        return scale_and_crop(image, height, width)


def _choose_shape(shapes: dict[Path, tuple[int, int, int]], asked: tuple[int, ...] | None) -> tuple[int, int, int]:
    """Return the shape that is asked for, or the shape of the images.

    The images have 3 channels as soon as one has color.
    """
    if asked is not None:
        if len(asked) != 3 or asked[0] not in (1, 3):
            given = shape_text(asked)
            raise DataError(f"images give 1×H×W or 3×H×W, but --input-shape is {given}; give arrays instead")
        return asked[0], asked[1], asked[2]
    first, *others = shapes.items()
    for path, shape in others:
        if shape[1:] != first[1][1:]:
            raise DataError(
                f"the images differ in size: {first[0]} is {shape_text(first[1][1:])} and {path} is "
                f"{shape_text(shape[1:])}; give the size to scale and crop them to, --input-shape 3,224,224"
            )
    return max(shape[0] for shape in shapes.values()), first[1][1], first[1][2]


def _describe_processing(shapes: list[tuple[int, int, int]], target: tuple[int, int, int]) -> list[str]:
    """Return what is done to at least one of the images, a sentence each."""
    done = ["values scaled to [0, 1]"]
    if any(shape[0] < target[0] for shape in shapes):
        done.append("gray images repeated in three channels")
    if any(shape[0] > target[0] for shape in shapes):
        done.append("color images reduced to their luma (BT.601)")
    if any(shape[1:] != target[1:] for shape in shapes):
        done.append(f"scaled to cover {shape_text(target[1:])} (bilinear, antialiased), center-cropped")
    return done
