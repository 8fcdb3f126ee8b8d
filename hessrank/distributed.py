"""The processes that share one ranking, each with samples of its own.

All talking goes through torch.distributed. A sample's numbers come from one process and are added to zeros, so that
what the processes find together is, number for number, what one would have found.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from hessrank.errors import HessrankError

T = TypeVar("T")
_Number = TypeVar("_Number", bound=np.generic)


class Team:
    """Processes that do the same work for different samples; one by default.

    Attributes:
        place: which of them this process is, from 0; the first one reads and writes the files.
        size: how many there are.
    """

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        """Join ``group``, whose backend must take tensors on the CPU (gloo)."""
        self._group = group
        self.place = 0 if group is None else dist.get_rank(group)
        self.size = 1 if group is None else dist.get_world_size(group)

    @property
    def is_first(self) -> bool:
        """Whether this is the process that speaks for all."""
        return self.place == 0

    def share(self, samples: int) -> range:
        """Return the range of samples that this process does.

        They are neighbors, so that batches stay together.
        """
        return range(samples * self.place // self.size, samples * (self.place + 1) // self.size)

    def gather(self, table: NDArray[_Number], axis: int) -> NDArray[_Number]:
        """Return ``table`` with each process's samples from that process.

        Args:
            table: what this process has found; entries of others' samples may be anything.
            axis: which of its axes counts the samples.
        """
        if self.size == 1:
            return table
        own = self.share(table.shape[axis])
        mine = np.zeros_like(table)
        places = (slice(None),) * axis + (slice(own.start, own.stop),)
        mine[places] = table[places]
        return self._reduce(mine, dist.ReduceOp.SUM)

    def reduce_min(self, table: NDArray[_Number]) -> NDArray[_Number]:
        """Return the smallest value of each entry among all processes."""
        return self._reduce(table, dist.ReduceOp.MIN)

    def reduce_max(self, table: NDArray[_Number]) -> NDArray[_Number]:
        """Return the largest value of each entry among all processes."""
        return self._reduce(table, dist.ReduceOp.MAX)

    def broadcast(self, value: T) -> T:
        """Return the value of the first process to all."""
        if self.size == 1:
            return value
        values: list[Any] = [value]
        dist.broadcast_object_list(values, group=self._group, group_src=0)
        first: T = values[0]
        return first

    def gather_values(self, value: T) -> list[T]:
        """Return the values of all processes, in their order."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self._group)
        return values

    @contextmanager
    def raise_together(self) -> Iterator[None]:
        """Raise the error of one process in all, at the end of the block.

        No process goes on to wait for one that is gone.

        Raises:
            HessrankError: the first process's that failed, in each of them; what is none of ours stays as it is
                where it was raised.
        """
        if self.size == 1:
            yield
            return
        error: Exception | None = None
        try:
            yield
        except Exception as raised:
            error = raised
        shown = error  # as the others see it
        if error is not None and not isinstance(error, HessrankError):
            why = f"({type(error).__name__}: {error}): its traceback is above"
            shown = HessrankError(f"process {self.place} failed {why}")
        failed = [failure for failure in self.gather_values(shown) if failure is not None]
        if error is not None and not isinstance(error, HessrankError):
            raise error
        if failed:
            raise failed[0]

    def _reduce(self, table: NDArray[_Number], how: dist.ReduceOp.RedOpType) -> NDArray[_Number]:
        if self.size == 1:
            return table
        tensor = torch.from_numpy(np.array(table))
        dist.all_reduce(tensor, how, group=self._group)
        found: NDArray[_Number] = tensor.numpy()
        return found
