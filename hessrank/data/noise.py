"""Random samples, for a network of which only the input's shape is known."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


class NoiseSamples:
    """Standard normal samples (mean 0, standard deviation 1), float32.

    Sample i depends on the seed and on i alone, so the first few are the same however many there are.
    """

    def __init__(self, shape: tuple[int, ...], length: int, seed: int) -> None:
        """Remember what to draw.

        Args:
            shape: of one sample.
            length: how many there are.
            seed: any integer.
        """
        self._shape, self._length, self._seed = shape, length, seed

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Tensor:
        if not -self._length <= index < self._length:
            raise IndexError(f"sample {index} of {self._length}")
        name = f"{self._seed}:{index % self._length}".encode()
        seed = int.from_bytes(hashlib.sha256(name).digest()[:8], "little") >> 1
        return torch.randn(self._shape, generator=torch.Generator().manual_seed(seed))
