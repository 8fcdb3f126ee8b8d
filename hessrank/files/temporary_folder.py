"""Makes folders that are removed at the end of the work."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hessrank.errors import OutputError
from hessrank.text import one_line


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Give a folder that is removed when the block is left.

    Raises:
        OutputError: there is no place for it.
    """
    try:
        folder = tempfile.TemporaryDirectory(prefix="hessrank-", ignore_cleanup_errors=True)
    except OSError as error:
        remedy = "let TMPDIR name a folder that can be written to"
        raise OutputError(f"there is no folder for temporary files: {one_line(error)}; {remedy}") from error
    with folder as name:
        yield Path(name)
