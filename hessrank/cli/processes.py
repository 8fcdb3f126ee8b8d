"""The processes that torchrun has started, and how to join them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

_NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_PATIENCE = timedelta(days=7)  # others may be at work on a sample; of a process that is gone the launcher knows


def has_other_processes() -> bool:
    """Return whether this is one of several processes."""
    return all(name in os.environ for name in _NEEDED) and int(os.environ["WORLD_SIZE"]) > 1


def is_first_process() -> bool:
    """Return whether this is the one process that prints and writes."""
    return not has_other_processes() or int(os.environ["RANK"]) == 0


def choose_device(device: str) -> str:
    """Return ``device``, with this process's number where it is a GPU without."""
    if not has_other_processes() or device == "cpu" or ":" in device:
        return device
    return f"{device}:{os.environ.get('LOCAL_RANK', '0')}"


@contextmanager
def join_processes() -> Iterator[ProcessGroup | None]:
    """Join the other processes until the block is left.

    Yields:
        their group; None if there are none.
    """
    if not has_other_processes():
        yield None
        return
    import torch.distributed as dist

    dist.init_process_group("gloo", timeout=_PATIENCE)
    try:
        yield dist.group.WORLD
    finally:
        dist.destroy_process_group()
