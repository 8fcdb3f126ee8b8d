"""What training and validation take from the pairs of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from hessrank.data.crop import center_crop
from hessrank.distill.tasks.lowlight.data.pairs import Pair, Targets, check_size, mono_and_rgb, read_pair, tensor
from hessrank.distill.tasks.lowlight.data.squares import bayer_crop, draw_square
from hessrank.distill.tasks.lowlight.network import SIZE_MULTIPLE

Sample = tuple[Tensor, tuple[Tensor, Tensor]]
"""``(raw, (mono, rgb))``: float32 1×H×W, 1×H×W and 3×H×W, in [0, 1]."""


class TrainingSquares(Dataset[Sample]):
    """Random squares of the frames, at even offsets, flipped such that the mosaic keeps its phase.

    Item k is a function of (seed, k) alone, for any k ≥ 0: every run of so many items as there are pairs
    takes each pair once, in random order.

    Args:
        pairs: at least one.
        size: side of the squares, even.
        seed: of all randomness.
        length: number of items in an epoch; None takes the number of pairs.
        cache: targets to keep in memory, in each process that reads.
        near: where targets are slow to read and shared by several pairs: the order goes through so many of
            them at a time, all their pairs mixed, so that as many in memory save the reading. None: no such
            limit.

    Raises:
        DataError: the first frame is smaller than a square or cannot be opened.
    """

    endless: ClassVar[Literal[True]] = True

    def __init__(
        self,
        pairs: Sequence[Pair],
        *,
        size: int,
        seed: int,
        length: int | None = None,
        cache: int = 8,
        near: int | None = None,
    ) -> None:
        check_size(pairs[0].dark, pairs[0].shape, size)
        self._pairs, self._size, self._seed = list(pairs), size, seed
        self._length = len(pairs) if length is None else length
        self._targets = Targets(cache)
        self._near = near or len(pairs)
        self._order: tuple[int, list[int]] = (-1, [])

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Sample:
        if index < 0:
            raise IndexError(index)
        pair = self._pairs[self._pair_of(index)]
        raw, target = read_pair(pair, self._targets, self._size)
        rng = np.random.default_rng([self._seed, index])
        place = draw_square(raw.shape[1:], self._size, rng)
        return tensor(bayer_crop(raw, *place)), mono_and_rgb(bayer_crop(target, *place))

    def _pair_of(self, index: int) -> int:
        turn, place = divmod(index, len(self._pairs))
        if turn != self._order[0]:
            self._order = (turn, self._shuffled(turn))
        return self._order[1][place]

    def _shuffled(self, turn: int) -> list[int]:
        """Return all pairs in random order, but those of some targets before those of the next."""
        rng = np.random.default_rng([self._seed, turn, 1])  # not what draws the square of item ``turn``
        files = sorted({pair.reference for pair in self._pairs})
        group = {file: place // self._near for file, place in zip(files, rng.permutation(len(files)), strict=True)}
        shuffled = (int(i) for i in rng.permutation(len(self._pairs)))
        return sorted(shuffled, key=lambda i: group[self._pairs[i].reference])


class WholeFrames(Dataset[Sample]):
    """The frames, each cropped about its middle, at even offsets, to multiples of 32.

    Args:
        pairs: at least one. Where neighbors share a target, it is read once.

    Raises:
        DataError: the first frame is too small or cannot be opened.
    """

    def __init__(self, pairs: Sequence[Pair]) -> None:
        check_size(pairs[0].dark, pairs[0].shape, SIZE_MULTIPLE)
        self._pairs = list(pairs)
        self._targets = Targets(1)

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> Sample:
        raw, target = read_pair(self._pairs[index], self._targets, SIZE_MULTIPLE)
        height, width = (side // SIZE_MULTIPLE * SIZE_MULTIPLE for side in raw.shape[1:])
        mono, rgb = (center_crop(picture, height, width, step=2) for picture in mono_and_rgb(target))
        return center_crop(tensor(raw), height, width, step=2), (mono, rgb)
