"""What is known of a layer without gradients: shapes, size, range, sample axis."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class SampleAxis:
    """The dimension of an activation along which its samples lie.

    Sample i holds entries [i·repeat, (i+1)·repeat) of dimension ``dim``.

    Along ``positions`` it keeps those of padded sequences. Values up to ``masked`` are masked scores; None where
    there are none.
    """

    dim: int = 0
    repeat: int = 1
    positions: tuple[int, ...] = ()
    masked: float | None = None

    def rows(self, value: Tensor, batch_size: int) -> Tensor:
        """Return ``value`` as one row a sample, batch_size × elements."""
        if batch_size == 1:
            return value.reshape(1, -1)
        return value.movedim(self.dim, 0).reshape(batch_size, -1)

    def from_rows(self, rows: Tensor, like: Tensor) -> Tensor:
        """Return ``rows``, one a sample, in the shape of the activation ``like``."""
        moved = like.movedim(self.dim, 0) if like.ndim else like
        return rows.reshape(moved.shape).movedim(0, self.dim) if like.ndim else rows.reshape(())


@dataclass
class LayerFacts:
    """What is known of one layer.

    Attributes:
        shapes: of each sample's activation, without the batch dimension; () where the layer does not run.
        numels: each sample's number of elements.
        macs: multiply-accumulates of the call that makes it, for one sample; the mean over the samples.
        numel: number of elements; without padding, the mean over the samples.
        low: smallest finite value over the data.
        high: largest finite value over the data.
        axis: where the samples lie in it.
    """

    shapes: tuple[tuple[int, ...], ...]
    numels: tuple[int, ...]
    macs: float
    numel: float = field(init=False)
    low: float = math.inf
    high: float = -math.inf
    axis: SampleAxis = SampleAxis()

    def __post_init__(self) -> None:
        self.numel = sum(self.numels) / len(self.numels)

    @property
    def shape(self) -> tuple[int, ...]:
        """The largest of the shapes."""
        return max(self.shapes, key=math.prod)

    def mask(self, value: float) -> None:
        """Count values up to ``value``, and up to those counted before, as masked scores."""
        before = -math.inf if self.axis.masked is None else self.axis.masked
        self.axis = replace(self.axis, masked=max(before, value))


def sample_norms(value: Tensor, axis: SampleAxis, batch_size: int) -> Tensor:
    """Return the 2-norm of each sample's part of ``value``, (batch_size,).

    It is computed in the precision of ``value``.
    """
    if batch_size == 1:
        return torch.linalg.vector_norm(value).reshape(1)  # type: ignore[no-any-return]
    return torch.linalg.vector_norm(axis.rows(value, batch_size), dim=1)  # type: ignore[no-any-return]
