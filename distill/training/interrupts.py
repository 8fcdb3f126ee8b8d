"""Ctrl-C during a training: heard at the end of a step, where nothing can swallow it; a second one at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class Interrupts(Callback):
    """Raises KeyboardInterrupt at the end of a step if Ctrl-C came.

    Python raises it wherever it happens to be, also in the callbacks of garbage collection, which ignore it.
    """

    def __init__(self) -> None:
        """Nothing came yet."""
        self._came = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take SIGINT until the block is left; its handler is then what it was before, whatever Lightning set."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.getsignal(signal.SIGINT)
        if before is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._hear)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _hear(self, number: int, frame: Any) -> None:
        if self._came:
            raise KeyboardInterrupt
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
