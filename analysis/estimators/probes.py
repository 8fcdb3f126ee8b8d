"""Probe vectors: random signs by seed, sample and probe, and two complete bases.

An estimator that averages vᵀHv over probes with E[v vᵀ] = I is unbiased for tr H (Hutchinson 1989). With the
rows of a Hadamard matrix, or with the unit vectors, the average over all of them is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor


class Probes(Protocol):
    """A source of probe vectors that depend on nothing but their indices."""

    def draw(self, numel: int, *, sample: int, probe: int, stream: int = 0) -> Tensor:
        """Return probe ``probe`` of ``sample``: ``numel`` float32 values on the CPU.

        Args:
            numel: its length.
            sample: index of the sample in the data set.
            probe: index of the probe.
            stream: separates the vectors of one sample and probe where several are needed (one a layer).
        """
        ...


class Rademacher:
    """Independent random signs: of unbiased probes those of least variance."""

    def __init__(self, seed: int) -> None:
        """Take the seed that all random numbers follow from."""
        self.seed = seed

    def draw(self, numel: int, *, sample: int, probe: int, stream: int = 0) -> Tensor:
        """Return ``numel`` random signs, the same ones on every machine."""
        key = np.random.SeedSequence([self.seed, sample, probe, stream]).generate_state(1, np.uint64)[0]
        generator = torch.Generator().manual_seed(int(key))
        packed = torch.empty((numel + 7) // 8, dtype=torch.uint8).random_(0, 256, generator=generator)
        bits = (packed[:, None] >> torch.arange(8, dtype=torch.uint8)) & 1
        return bits.reshape(-1)[:numel].float().mul_(2).sub_(1)


class Hadamard:
    """Rows of Sylvester's Hadamard matrix; the mean over all of them is exact."""

    def draw(self, numel: int, *, sample: int, probe: int, stream: int = 0) -> Tensor:
        """Return the first ``numel`` entries of row ``probe``."""
        parity = np.bitwise_count(np.arange(numel, dtype=np.uint64) & np.uint64(probe)) & 1
        return 1.0 - 2.0 * torch.from_numpy(parity.astype(np.float32))

    @staticmethod
    def rows(numel: int) -> int:
        """Return how many rows make it exact for ``numel`` entries: a power of two."""
        return 1 << max(0, numel - 1).bit_length()


class UnitVectors:
    """The columns of the identity; the sum over all of them is exact."""

    def draw(self, numel: int, *, sample: int, probe: int, stream: int = 0) -> Tensor:
        """Return the unit vector along entry ``probe``."""
        return torch.zeros(numel).index_fill_(0, torch.tensor(probe), 1.0)


def output_probes(probes: Probes, outputs: Sequence[Tensor], samples: Sequence[int], probe: int) -> list[Tensor]:
    """Return a probe of the shape of the network's outputs.

    Args:
        probes: where the vectors come from.
        outputs: output tensors, samples along dimension 0.
        samples: index of each sample in the data set.
        probe: index of the probe.

    Returns:
        one tensor an output, of its shape, type and device.
    """
    numel = sum(output[0].numel() for output in outputs)
    return reshape_like(outputs, torch.stack([probes.draw(numel, sample=sample, probe=probe) for sample in samples]))


def reshape_like(outputs: Sequence[Tensor], rows: Tensor) -> list[Tensor]:
    """Split ``rows``, a sample's outputs concatenated, into tensors like ``outputs``."""
    sizes = [output[0].numel() for output in outputs]
    return [part.reshape(o.shape).to(o) for part, o in zip(torch.split(rows, sizes, dim=1), outputs, strict=True)]
