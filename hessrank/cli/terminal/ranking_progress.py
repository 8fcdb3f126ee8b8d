"""The progress of a ranking: a bar on a terminal, plain lines elsewhere.

The plain lines come every five seconds, or every HESSRANK_PROGRESS_SECONDS.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from hessrank.cli.environment import read_seconds
from hessrank.cli.processes import is_first_process
from hessrank.terminal import say, terminal

Report = Callable[[str, int, int], None]

# What each stage does, and about from where to where it takes the whole.
STAGES = {
    "ranges": ("measuring the range of every tensor", 0.0, 0.1),
    "probes": ("estimating the traces, probes", 0.1, 0.6),
    "increases": ("predicting the increases of the loss", 0.6, 0.9),
    "checked": ("checking doubtful predictions", 0.9, 0.95),
    "measured": ("measuring what predictions missed", 0.95, 1.0),
    "verify": ("quantizing one tensor at a time", 0.0, 1.0),
}


@contextmanager
def reporter() -> Iterator[Report]:
    """Give a function ``report(stage, done, total)`` that shows progress.

    Of several processes only the first one shows its own, which is about everybody's.

    Raises:
        OptionError: HESSRANK_PROGRESS_SECONDS is no number of seconds.
    """
    if not is_first_process():
        yield lambda stage, done, total: None
        return
    console, between_lines = terminal(err=True), read_seconds("HESSRANK_PROGRESS_SECONDS", 5)
    if not console.is_terminal:
        yield _line_reporter(between_lines)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task, whole = bar.add_task("", total=1.0), 0.0

        def report(stage: str, done: int, total: int) -> None:
            nonlocal whole
            whole = max(whole, share_done(stage, done, total))
            bar.update(task, description=describe(stage, done, total), completed=whole)

        yield report


def describe(stage: str, done: int, total: int) -> str:
    """Return what a stage does, in words, and how far it is."""
    words, *_ = STAGES.get(stage, (stage,))
    return f"{words} {done}/{total}"


def share_done(stage: str, done: int, total: int) -> float:
    """Return which share of the whole is done; 0 if the stage is unknown."""
    _, begin, end = STAGES.get(stage, (stage, 0.0, 0.0))
    return begin + (end - begin) * done / max(total, 1)


def _line_reporter(between_lines: float) -> Report:
    started = last = time.monotonic()

    def report(stage: str, done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= between_lines:
            last = now
            say(f"{describe(stage, done, total)}, {now - started:.0f} s", err=True)

    return report
