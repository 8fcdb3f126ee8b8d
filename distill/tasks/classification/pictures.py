"""Pictures with labels, in order and drawn at random."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import numpy as np
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from hessrank.errors import OptionError


class PictureStack(Protocol):
    """A stack of pictures N×C×H×W, or what decodes one when it is asked for."""

    def __len__(self) -> int:
        """Return N."""
        ...

    def __getitem__(self, index: int, /) -> Tensor:
        """Return picture ``index``, float32 C×H×W in [0, 1]."""
        ...


class LabeledPictures(Dataset[tuple[Tensor, Tensor]]):
    """Pictures in a fixed order: ``(picture, label)``, float32 C×H×W in [0, 1] and an int64 scalar.

    Args:
        pictures: N of them.
        labels: index of each one's class, int64, shape (N,).
    """

    def __init__(self, pictures: PictureStack, labels: Tensor) -> None:
        self.pictures, self.labels = pictures, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.pictures[index], self.labels[index]


@dataclass(frozen=True)
class ClassifiedPictures:
    """What a classifier learns from and what it is judged by.

    Attributes:
        classes: names; a label is an index into them.
        shape: channels, height and width of every picture.
        training: pictures to learn from.
        validation: pictures that training never sees.
        notes: what a user should know of them, a sentence each.
    """

    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    training: LabeledPictures
    validation: LabeledPictures
    notes: tuple[str, ...]


class RandomPictures(Dataset[tuple[Tensor, Tensor]]):
    """Endless training samples: pictures shuffled, shifted and mirrored.

    Item k is a function of (seed, k) alone, for any k ≥ 0; the items i·N to (i+1)·N − 1 show each of N pictures once,
    in an order of their own. The
    shifts and mirror images are those of He et al., "Deep Residual Learning for Image Recognition", CVPR 2016,
    section 4.2, but that edges are filled by reflection, not with black.

    Args:
        data: what is drawn from.
        seed: of all randomness.
        samples: items in an epoch; one for each picture if None.
        shift: how far a picture may move in each direction, as a share of its shorter side.
        flip: whether every other picture, by chance, is mirrored left to right.

    Raises:
        OptionError: an epoch would hold no item.
    """

    endless: ClassVar[Literal[True]] = True

    def __init__(
        self,
        data: LabeledPictures,
        *,
        seed: int,
        samples: int | None = None,
        shift: float = 0.0,
        flip: bool = False,
    ) -> None:
        if samples is not None and not (isinstance(samples, int) and samples > 0):
            raise OptionError(
                f"samples: {samples}; give how many an epoch has, or leave it out for each picture once"
            )
        self._data, self._seed, self._shift, self._flip = data, seed, shift, flip
        self._samples = len(data) if samples is None else samples
        self._pass, self._order = -1, np.arange(0)

    def __len__(self) -> int:
        return self._samples

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if index < 0:
            raise IndexError(index)
        picture, label = self._data[self._place(index)]
        rng = np.random.default_rng([self._seed, index])
        picture = _shifted(picture, int(self._shift * min(picture.shape[1:])), rng)
        return picture.flip(-1) if self._flip and rng.integers(2) else picture, label

    def _place(self, index: int) -> int:
        """Return which picture item ``index`` shows."""
        number, place = divmod(index, len(self._data))
        if number != self._pass:
            self._pass, self._order = number, np.random.default_rng([self._seed, number]).permutation(len(self._data))
        return int(self._order[place])


def _shifted(picture: Tensor, padding: int, rng: np.random.Generator) -> Tensor:
    """Return the picture moved by at most ``padding`` pixels in each direction."""
    top, left = (int(offset) for offset in rng.integers(2 * padding + 1, size=2))
    padded = F.pad(picture, (padding,) * 4, mode="reflect")
    return padded[:, top : top + picture.shape[1], left : left + picture.shape[2]]
