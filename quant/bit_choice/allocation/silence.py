"""Keep what HiGHS prints out of the process's standard output.

It prints by itself (SciPy 1.17, with display off).
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_STDOUT = 1


@contextmanager
def solver_silenced() -> Iterator[None]:
    """Send what C code writes to standard output nowhere until the block is left.

    Where standard output is closed, or C's buffers cannot be reached, nothing is done.
    """
    try:
        library, kept = ctypes.CDLL(None), os.dup(_STDOUT)
    except (OSError, TypeError):
        yield
        return
    if sys.stdout is not None:
        sys.stdout.flush()
    library.fflush(None)
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        os.dup2(nowhere.fileno(), _STDOUT)
    try:
        yield
    finally:
        library.fflush(None)  # what C holds back, it would write later
        os.dup2(kept, _STDOUT)
        os.close(kept)
