"""How far a ranking is: a bar with the time left on a terminal, plain lines elsewhere; on stderr.

The plain lines come every five seconds, or every HESSRANK_PROGRESS_SECONDS.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from hessrank.cli.processes import first

SECONDS_BETWEEN_LINES = float(os.environ.get("HESSRANK_PROGRESS_SECONDS", "5"))

Report = Callable[[str, int, int], None]


@contextmanager
def reporter() -> Iterator[Report]:
    """Give a function ``report(stage, done, total)`` that shows progress until the block is left.

    Of several processes only the first one shows its own, which is about everybody's.
    """
    if not first():
        yield lambda stage, done, total: None
        return
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _line_reporter()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        tasks = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total)
            bar.update(tasks[stage], completed=done, total=total)

        yield report


def _line_reporter() -> Report:
    started = last = time.monotonic()

    def report(stage: str, done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES:
            last = now
            print(f"{stage} {done}/{total}, {now - started:.0f} s", file=sys.stderr, flush=True)  # noqa: T201

    return report
