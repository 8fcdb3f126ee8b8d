"""One line for whatever went wrong."""

from __future__ import annotations

import errno

import pytest

from hessrank.cli.unforeseen_errors import explain


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (SystemExit(3), "must not call sys.exit"),
        (OSError(errno.ENOSPC, "No space left", "out.csv"), "out.csv: no space left on the disk: make room"),
        (OSError(errno.EROFS, "Read-only file system"), "Read-only file system, and start the command again"),
        (MemoryError(), "out of memory"),
        (RecursionError("deep"), "too deeply nested (deep)"),
        (ValueError("first\nsecond"), "this is a bug of hessrank, or of code of yours"),
    ],
)
def test_an_error_is_explained_in_one_line(error: BaseException, line: str) -> None:
    told = explain(error)
    assert line in told
    assert "\n" not in told
