"""Recognizes errors that mean a lack of memory, and explains them."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

from hessrank.errors import HessrankError, ModelError
from hessrank.text import message_of

_SAID = re.compile(
    r"DefaultCPUAllocator|std::bad_alloc|bad allocation|Cannot allocate memory|Failed to allocate memory"
    r"|out of memory|could not create a (primitive|memory object)$|_STATUS_ALLOC_FAILED|can't start new thread",
    re.MULTILINE,
)
"""torch's allocator, C++, the system, onnxruntime, CUDA and MPS, oneDNN, cuBLAS, and threads that get no stack."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether ``error`` says that memory ran out.

    Most libraries have no class of their own for it.
    """
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    if isinstance(error, HessrankError) or not isinstance(error, Exception):
        return False
    named = any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__)  # torch's, also on a GPU
    return named or bool(_SAID.search(message_of(error)))


@contextmanager
def explain_memory_errors() -> Iterator[None]:
    """Turn an allocator's error inside the block into one line.

    Batches have been made smaller by then.

    Raises:
        ModelError: memory did not suffice.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise ModelError("out of memory with one sample: use a smaller --input-shape, or another machine") from error
