"""What a training leaves to read: a row an epoch, rows of single steps, a page an epoch, TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pandas as pd
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from hessrank.distill.run_file import Settings
from hessrank.distill.training.loop.lightning_module import Training
from hessrank.distill.training.outputs.file_names import METRICS, STEPS, page_name
from hessrank.files.atomic_write import written_whole

Row = dict[str, Any]


class MetricsFiles(Callback):
    """Keeps the tables and pages of metrics in step with the checkpoints.

    They are ``metrics.csv``, ``steps.csv`` and ``results/epoch0007.txt``.

    The rows of epochs lie in the checkpoint too: a run that goes on from it writes the file that an uninterrupted
    run writes.

    Attributes:
        rows: one an epoch: ``epoch``, ``step``, ``learning_rate``, ``train/…`` (means over the epoch), ``val/…``.
    """

    def __init__(self, folder: Path, settings: Settings) -> None:
        """Write into ``folder``."""
        self._folder, self._settings = folder, settings
        self.rows: list[Row] = []
        self._steps: list[Row] = []

    @property
    def state_key(self) -> str:
        """The key of the rows in a checkpoint, as the first release wrote it."""
        return "Records"

    def state_dict(self) -> dict[str, Any]:
        """Return the rows."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take them back."""
        self.rows = list(state_dict["rows"])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Drop rows of steps that a killed run made after its last checkpoint."""
        path = self._folder / STEPS
        if trainer.is_global_zero and path.exists():
            frame = _read_csv(path)
            _write_csv(frame[frame["step"].astype(int) <= trainer.global_step], path)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the steps of the epoch before."""
        self._steps = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the terms of the loss of this step, if it is one that is logged."""
        detailed = trainer.current_epoch < self._settings.detailed_epochs
        if trainer.is_global_zero and (detailed or trainer.global_step % self._settings.log_every == 0):
            terms = {name: float(term) for name, term in outputs.items() if isinstance(term, Tensor)}
            self._steps.append({"epoch": trainer.current_epoch + 1, "step": trainer.global_step, **terms})
            _to_loggers(trainer, {f"step/{name}": term for name, term in terms.items()})

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the epoch's row, its steps and its page."""
        module = cast(Training, pl_module)
        means = module.train_means()  # all processes take part in it
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        row = {"epoch": trainer.current_epoch + 1, "step": trainer.global_step, "learning_rate": rate}
        self.rows.append({**row, **means, **module.found})
        if not trainer.is_global_zero:
            return
        _write_csv(pd.DataFrame(self.rows), self._folder / METRICS)
        self._append_steps()
        _to_loggers(trainer, {**means, **module.found})
        self._write_page(trainer.max_epochs)

    def _append_steps(self) -> None:
        """Add this epoch's steps; a column that is new (a term that was not there) makes the file anew."""
        if not self._steps:
            return
        path, new = self._folder / STEPS, pd.DataFrame(self._steps)
        old = [_read_csv(path)] if path.exists() else []
        _write_csv(pd.concat([*old, new], ignore_index=True), path)

    def _write_page(self, epochs: int | None) -> None:
        """Write the last row to a page of its own, a line a column."""
        row = dict(self.rows[-1])
        epoch, step = row.pop("epoch"), row.pop("step")
        width = max(map(len, row))
        lines = [f"epoch {epoch} of {epochs}, step {step}", *(f"{n:{width}}  {v:.6g}" for n, v in row.items())]
        page = self._folder / page_name(epoch)
        page.parent.mkdir(exist_ok=True)
        with written_whole(page) as beside:
            beside.write_text("\n".join([*lines, ""]), encoding="utf-8")


def _to_loggers(trainer: Trainer, values: Mapping[str, float]) -> None:
    for logger in trainer.loggers:
        logger.log_metrics(dict(values), step=trainer.global_step)


def _write_csv(frame: pd.DataFrame, path: Path) -> None:
    with written_whole(path) as beside:
        frame.to_csv(beside, index=False)


def _read_csv(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str)  # numbers stay as they were written
