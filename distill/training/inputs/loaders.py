"""Who gets which samples when: an order by (seed, epoch) alone, shared among processes."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler, IterableDataset, Subset

from hessrank.data import Data
from hessrank.data.samples import as_samples
from hessrank.distill.run_file import Settings
from hessrank.errors import DataError, OptionError


@dataclass(frozen=True)
class ProcessRank:
    """One process among all that train together."""

    rank: int = 0
    world: int = 1


class EpochSampler(DistributedSampler[Any]):
    """torch's sampler for many processes, whose order is a function of (seed, epoch).

    Of endless samples it draws new ones in every epoch. Every process leaves out what would not fill a last batch.
    """

    def __init__(self, dataset: Dataset[Any], process: ProcessRank, *, seed: int, epoch: int) -> None:
        """Sample ``dataset`` for one process, from ``epoch`` on."""
        endless = bool(getattr(dataset, "endless", False))  # these are in random order already
        super().__init__(dataset, process.world, process.rank, shuffle=not endless, seed=seed, drop_last=True)
        self.set_epoch(epoch)
        self._stride = len(dataset) if endless else 0  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        first = self.epoch * self._stride
        return (first + index for index in super().__iter__())


class _SeededWorker:
    """Seeds a loading process by (seed, epoch, process, worker), for data sets that draw from global generators."""

    def __init__(self, sampler: EpochSampler, seed: int) -> None:
        self._sampler, self._seed = sampler, seed

    def __call__(self, worker: int) -> None:
        seed_all(self._seed, self._sampler.epoch, self._sampler.rank, 1 + worker)


class LazyLoader:
    """A user's data loader, whose iterator is made after the epoch was seeded."""

    def __init__(self, loader: Any) -> None:
        """Iterate over ``loader``."""
        self._loader = loader

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Any]:
        yield from self._loader


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the generators of torch, numpy and Python, and leave them as they were."""
    states = np.random.get_state(), random.getstate()
    with torch.random.fork_rng():
        try:
            seed_all(seed)
            yield
        finally:
            np.random.set_state(states[0])
            random.setstate(states[1])


def seed_all(*key: int) -> None:
    """Seed the generators of torch, numpy and Python by a key of whole numbers."""
    state = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])
    torch.manual_seed(state)
    np.random.seed(state % 2**32)
    random.seed(state)


def training_loader(data: Any, settings: Settings, process: ProcessRank = ProcessRank(), epoch: int = 0) -> Any:
    """Return the batches of training; those of a data loader as they are.

    Args:
        data: samples, or a data loader.
        settings: batch size (over all processes), seed and workers.
        process: which one asks.
        epoch: the epoch to start at.

    Raises:
        DataError: fewer samples than a batch holds.
        OptionError: the batch size cannot be shared among the processes.
    """
    if not is_dataset(data):
        if process.world > 1:
            raise OptionError(
                f"a data loader of one's own cannot be shared among {process.world} processes: give a data set"
            )
        return LazyLoader(_batched(data, settings.batch_size))
    samples: Any = as_samples(data)
    if settings.batch_size % process.world:
        raise OptionError(f"batch_size {settings.batch_size} cannot be shared among {process.world} processes")
    if len(samples) < settings.batch_size:
        raise DataError(
            f"{len(samples)} training samples do not fill a batch of {settings.batch_size}: take a smaller batch_size"
        )
    sampler = EpochSampler(samples, process, seed=settings.seed, epoch=epoch)
    return DataLoader(
        samples,
        batch_size=settings.batch_size // process.world,
        sampler=sampler,
        drop_last=True,
        num_workers=settings.workers,
        timeout=settings.data_timeout if settings.workers else 0,
        worker_init_fn=_SeededWorker(sampler, settings.seed) if settings.workers else None,
        generator=torch.Generator().manual_seed(settings.seed),
    )


def validation_loader(data: Any, batch_size: int, settings: Settings, process: ProcessRank = ProcessRank()) -> Any:
    """Return the batches of validation that one process judges.

    Together the processes judge each sample once.
    """
    if not is_dataset(data):
        return _batched(data, batch_size)
    samples: Any = as_samples(data)
    mine = Subset(samples, range(process.rank, len(samples), process.world))
    return DataLoader(
        mine,
        batch_size=batch_size,
        num_workers=settings.workers,
        timeout=settings.data_timeout if settings.workers else 0,
        generator=torch.Generator().manual_seed(settings.seed),
    )


def _batched(data: Any, batch_size: int) -> Any:
    """Return a data loader as it is, and batches of samples that come one after the other."""
    return DataLoader(data, batch_size=batch_size) if isinstance(data, IterableDataset) else data


def is_dataset(data: Any) -> bool:
    """Return whether ``data`` are samples, and not batches already."""
    data = data.dataset if isinstance(data, Data) else data
    indexed = hasattr(data, "__getitem__") and isinstance(data, Sized)
    return indexed and not isinstance(data, IterableDataset)
