"""Ctrl-C during work of which a part is saved."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class InterruptedWork(Exception):  # noqa: N818 - nothing went wrong
    """Says how to go on after Ctrl-C.

    It is no KeyboardInterrupt: of that, typer makes an exit code without a word.
    """


@contextmanager
def keeping_epochs(folder: Path) -> Iterator[None]:
    """Tell whoever interrupts a training that writes to ``folder`` how to go on.

    Raises:
        InterruptedWork: instead of KeyboardInterrupt.
    """
    try:
        yield
    except KeyboardInterrupt as stop:
        raise InterruptedWork(f"{folder} holds the epochs that were finished: go on with --resume") from stop
