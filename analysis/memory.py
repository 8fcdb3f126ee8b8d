"""What running out of memory looks like, on a GPU and on the CPU, and what to say when nothing helps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from hessrank.errors import ModelError


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether ``error`` says that memory ran out; torch's CPU allocator raises a bare RuntimeError."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    )


@contextmanager
def memory_errors_explained() -> Iterator[None]:
    """Turn what the allocators raise inside the block into one line; batches have been made smaller by then.

    Raises:
        ModelError: memory did not suffice.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise ModelError("out of memory with one sample: use a smaller --input-shape, or another machine") from error
