"""What to say when memory ran out and smaller batches did not help."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hessrank.errors import ModelError
from hessrank.memory import is_out_of_memory


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
