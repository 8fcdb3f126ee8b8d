"""How far a training is."""

from __future__ import annotations

import math
from typing import Any, Protocol, runtime_checkable

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor


class Report(Protocol):
    """Is told how far a training is."""

    def __call__(self, stage: str, done: int, total: int, /) -> None:
        """Take in that ``done`` of ``total`` steps are over; ``total`` is 0 where the data do not say."""
        ...


@runtime_checkable
class ShowsLoss(Protocol):
    """A report that is told the loss, too."""

    def loss(self, value: Tensor, /) -> None:
        """Take the loss of the step that is reported next, a scalar on its device."""
        ...


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
            if isinstance(self._report, ShowsLoss):
                self._report.loss(outputs["loss"].detach())
            total = trainer.estimated_stepping_batches
            self._report("training", trainer.global_step, int(total) if math.isfinite(total) else 0)
