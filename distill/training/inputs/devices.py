"""Where a training runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from hessrank.errors import OptionError


@dataclass(frozen=True)
class Devices:
    """What Lightning's trainer is told.

    Attributes:
        accelerator: ``cpu`` or ``gpu``.
        devices: how many, or the numbers of the GPUs.
        note: what was not done as asked; empty otherwise.
    """

    accelerator: str
    devices: int | list[int]
    note: str = ""

    @property
    def first(self) -> torch.device:
        """The device of this process before the others have started."""
        if self.accelerator == "cpu":
            return torch.device("cpu")
        return torch.device("cuda", self.devices[0] if isinstance(self.devices, list) else 0)

    @property
    def count(self) -> int:
        """How many there are on one machine."""
        return len(self.devices) if isinstance(self.devices, list) else self.devices


@contextmanager
def cpu_threads(count: int | None) -> Iterator[None]:
    """Let torch compute with so many threads in the block; None changes nothing."""
    before = torch.get_num_threads()
    torch.set_num_threads(before if count is None else count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def choose_devices(gpu_ids: Sequence[int], count: int) -> Devices:
    """Choose GPUs by number; any GPUs, where there are some; else the CPU.

    Args:
        gpu_ids: numbers of GPUs; empty for any.
        count: how many devices, if no numbers are given.

    Raises:
        OptionError: this machine has GPUs, but not these.
    """
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not available:
        note = "there is no GPU here: the CPU is taken" if gpu_ids else ""
        return Devices("cpu", count, f"gpu_id {_listed(gpu_ids)}: {note}" if note else "")
    missing = [number for number in gpu_ids if number >= available]
    if missing:
        raise OptionError(f"gpu_id {_listed(missing)}: this machine has the GPUs 0 to {available - 1}")
    return Devices("gpu", list(gpu_ids) if gpu_ids else count)


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
