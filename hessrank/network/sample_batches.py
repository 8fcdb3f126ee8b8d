"""Gives out samples in batches, in smaller ones when memory runs out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from hessrank.data.batch import Batch, make_batch
from hessrank.data.samples import Samples
from hessrank.distributed import Team
from hessrank.errors import DataError
from hessrank.out_of_memory import is_out_of_memory


def tensor_bytes(tensor: Tensor) -> bytes:
    """Return a tensor's values as bytes, for a checksum."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def check_finite(batch: Batch) -> None:
    """Refuse samples that hold NaN or infinity.

    Raises:
        DataError: naming the samples of the batch.
    """
    if not all(bool(leaf.isfinite().all()) for leaf in _find_tensors(batch)):
        which = "sample " if len(batch) == 1 else "one of the samples "
        raise DataError(f"{which}{', '.join(map(str, batch.samples))} of the data holds NaN or infinity")


def _find_tensors(batch: Batch) -> list[Tensor]:
    return [leaf for leaf in tree_leaves((batch.args, batch.kwargs, batch.target)) if isinstance(leaf, Tensor)]


@dataclass(frozen=True)
class SampleContents:
    """Checksum and shapes of all samples.

    Attributes:
        sha256: checksum of them as the network gets them, whatever the batch size.
        shapes: of each sample's inputs, with a batch dimension of 1.
    """

    sha256: str
    shapes: tuple[tuple[torch.Size, ...], ...]


class SampleBatches:
    """The samples of a ranking, given out in batches.

    Attributes:
        batch_size: samples a batch; halved for good when memory runs out.
        halved: whether that happened.
        team: the processes that share the samples.
        own: which of them this process does.
    """

    def __init__(
        self,
        samples: Samples,
        model: nn.Module,
        batch_size: int,
        *,
        needs_target: bool,
        team: Team | None = None,
    ) -> None:
        """Batch ``samples`` for ``model``; those of this process of ``team``."""
        self.batch_size = batch_size
        self.halved = False
        self.team = team or Team()
        self.own = self.team.share(len(samples))
        self._samples, self._model, self._needs_target = samples, model, needs_target
        weights = [p for p in model.parameters() if p.is_floating_point()]
        self._dtype = weights[0].dtype if weights else torch.float32
        self._device = next(model.parameters()).device if weights else torch.device("cpu")

    def __len__(self) -> int:
        return len(self._samples)

    def batch(self, *indices: int) -> Batch:
        """Return the samples at ``indices`` as one batch."""
        batch = make_batch(self._samples, indices, self._model, needs_target=self._needs_target)
        return batch.map(lambda t: t.to(self._device, self._dtype if t.is_floating_point() else None))

    def select(self, indices: Sequence[int]) -> SampleBatches:
        """Return some of the samples, numbered from 0, as batches of their own.

        They are for the same model and the same processes.
        """
        samples = [self._samples[index] for index in indices]
        return SampleBatches(samples, self._model, self.batch_size, needs_target=self._needs_target, team=self.team)

    def for_each(self, work: Callable[[Batch], None], start: int = 0) -> None:
        """Do ``work`` on every batch of this process.

        What fails for lack of memory is done again in halves.

        Args:
            work: is given each batch.
            start: the first sample; those before are left out.
        """
        start = max(start, self.own.start)
        while start < self.own.stop:
            stop = min(start + self.batch_size, self.own.stop)
            try:
                work(self.batch(*range(start, stop)))
            except Exception as error:
                if not is_out_of_memory(error) or self.batch_size == 1:
                    raise
                self.batch_size, self.halved = self.batch_size // 2, True
            else:
                start = stop

    def read_all(self) -> SampleContents:
        """Read all samples, one by one, and return their checksum and shapes.

        Raises:
            DataError: a sample holds NaN or infinity.
        """
        digest, shapes = hashlib.sha256(), []
        for index in range(len(self)):
            batch = self.batch(index)
            check_finite(batch)
            for leaf in _find_tensors(batch):
                digest.update(tensor_bytes(leaf))
            shapes.append(tuple(leaf.shape for leaf in _find_tensors(replace(batch, target=None))))
        return SampleContents(digest.hexdigest(), tuple(shapes))
