"""Ctrl-C during a training: heard at the end of a step, where nothing can swallow it; a second one at once."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from hessrank.signals import STOPPING, Stop, is_stopping, keep_handlers


class Interrupts(Callback):
    """Raises KeyboardInterrupt at the end of a step if a stopping signal came.

    Python raises it wherever it happens to be, also in the callbacks of garbage collection, which ignore it.
    """

    def __init__(self) -> None:
        """Nothing came yet."""
        self._came = False
        self._taken: list[int] = []
        self._handler = Stop(self._interrupt)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take the signals that stop the work until the block is left.

        Their handlers are then what they were before, whatever Lightning set.
        """
        with keep_handlers() as may_change:
            if may_change:
                self._taken = [number for number in STOPPING if is_stopping(signal.getsignal(number))]
            self._take()
            yield

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the signals again: Lightning has set its own handler of SIGTERM."""
        self._take()

    def _take(self) -> None:
        for number in self._taken:
            signal.signal(number, self._handler)

    def _interrupt(self) -> None:
        self._raise()
        self._came = True

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Raise it."""
        self._raise()

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Raise it."""
        self._raise()

    def _raise(self) -> None:
        if self._came:
            raise KeyboardInterrupt
