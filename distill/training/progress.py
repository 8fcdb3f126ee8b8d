"""How far a training is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

Report = Callable[[str, int, int], None]


class Progress(Callback):
    """Tells ``report("training", done, total)`` in steps."""

    def __init__(self, report: Report | None) -> None:
        """Tell ``report``; None tells nobody."""
        self._report = report

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Tell it."""
        if self._report is not None and trainer.is_global_zero:
            total = trainer.estimated_stepping_batches
            self._report("training", trainer.global_step, int(total))
