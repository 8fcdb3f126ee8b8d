"""The progress of a training: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import SupportsFloat

from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TextColumn, TimeRemainingColumn

from hessrank.cli.environment import read_seconds
from hessrank.main_process import is_main_process
from hessrank.terminal import say, terminal

_SECONDS_BETWEEN_LOSSES = 0.25  # on a GPU, reading the loss waits for the step


class TrainingReport:
    """Shows the steps of a training."""

    def __init__(self, bar: Progress, *, between_lines: float | None) -> None:
        """Keep count in ``bar``.

        Where it is not drawn, print a line every ``between_lines`` seconds.
        """
        self._bar, self._lines = bar, between_lines is not None
        self._between = _SECONDS_BETWEEN_LOSSES if between_lines is None else between_lines
        self._task = bar.add_task("", total=None, visible=False, told="")
        self._loss: SupportsFloat | None = None
        self._next = 0.0

    def loss(self, value: SupportsFloat) -> None:
        """Take the loss of the step that is reported next."""
        self._loss = value

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` steps are over; 0: nobody knows how many.

        Fewer than before are those of a new training.
        """
        task = self._shown
        if done < task.completed:
            self._bar.reset(self._task)
        self._bar.update(self._task, description=stage, completed=done, total=total or None, visible=True)
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + self._between
            self._show_loss_and_speed(task)

    def _show_loss_and_speed(self, task: Task) -> None:
        told = [] if self._loss is None else [f"loss {float(self._loss):.4g}"]
        told += [] if task.speed is None else [f"{task.speed:.3g} steps/s"]
        self._bar.update(self._task, told=", ".join(told))
        if self._lines:
            count = f"{int(task.completed)}/{'?' if task.total is None else int(task.total)}"
            left = [] if task.time_remaining is None else [f"{timedelta(seconds=int(task.time_remaining))} left"]
            say(", ".join([f"{task.description} {count}", *told, *left]), err=True)

    @property
    def _shown(self) -> Task:
        return next(task for task in self._bar.tasks if task.id == self._task)


@contextmanager
def training_reporter() -> Iterator[TrainingReport | None]:
    """Give what shows a training's progress; None in processes that only help.

    Raises:
        OptionError: HESSRANK_PROGRESS_SECONDS is no number of seconds.
    """
    if not is_main_process():
        yield None
        return
    console = terminal(err=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[told]}", markup=False),
        TimeRemainingColumn(),
    )
    bar = Progress(*columns, console=console, transient=True)
    if not console.is_terminal:  # it counts, and is not drawn
        yield TrainingReport(bar, between_lines=read_seconds("HESSRANK_PROGRESS_SECONDS", 5))
        return
    with bar:
        yield TrainingReport(bar, between_lines=None)
