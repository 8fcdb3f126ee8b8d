"""The last and the best state of a training on disk, whole at every moment.

Lightning's own ``ModelCheckpoint`` keeps the paths of its files in the checkpoint, so a folder that is moved loses
its best epoch, and counts epochs from 0; what is saved is Lightning's, which files are kept is decided here.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor

from hessrank.distill.training.loop.lightning_module import Training
from hessrank.distill.training.outputs.checkpoint_contents import FACTS
from hessrank.distill.training.outputs.file_names import BEST, LAST, checkpoint_name
from hessrank.distill.training.outputs.load_trained import as_float_checkpoint, knows_network
from hessrank.files.atomic_write import written_whole
from hessrank.models.model_checkpoint import write_checkpoint


class WholeFiles(TorchCheckpointIO):
    """Writes a checkpoint beside its place and renames it: no file is half."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write ``checkpoint``.

        Raises:
            OutputError: the disk is full or cannot be written to; what was there before still is.
        """
        write_checkpoint(Path(path), checkpoint)


class Checkpoints(Checkpoint):
    """Saves every epoch as ``last-epoch0007.ckpt`` and links the best one so far as ``best-epoch0005.ckpt``.

    The state before the first step counts: if the first epoch is no better, it becomes ``best-epoch0000.ckpt``.

    Attributes:
        best_epoch: epochs that were trained when the monitored metric was best; 0 before the first.
        best: its value then.

    It removes the files of earlier epochs that it wrote itself, in this process or before it went on.
    """

    def __init__(
        self,
        folder: Path,
        monitor: str,
        mode: Literal["max", "min"],
        facts: Mapping[str, Any],
        start: Mapping[str, float],
        epochs: int = 0,
    ) -> None:
        """Keep files in ``folder``.

        Args:
            folder: where.
            monitor: the metric that decides.
            mode: whether it should be large or small.
            facts: what goes into each file.
            start: the metrics before the first step; empty in processes that only help.
            epochs: that are trained already.
        """
        self._folder, self._monitor, self._mode, self._facts = folder, f"val/{monitor}", mode, dict(facts)
        self._found = {f"val/{name}": value for name, value in start.items()}
        self._epochs = epochs
        self._start: dict[str, Any] | None = None
        self._kept: list[tuple[str, int]] = []  # kinds and epochs of the files that the next epoch replaces
        self.best_epoch, self.best = 0, math.nan

    def state_dict(self) -> dict[str, Any]:
        """Return which epoch is the best, and what lay there before this one."""
        return {"best_epoch": self.best_epoch, "best": self.best, "before": [list(one) for one in self._kept]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it back."""
        self.best_epoch, self.best = state_dict["best_epoch"], state_dict["best"]
        self._kept = [(str(kind), int(epoch)) for kind, epoch in state_dict.get("before", [])]

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Put the facts beside the weights."""
        checkpoint |= self._describe(checkpoint["state_dict"])

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Finish what a run that was killed between two files left."""
        if self._epochs and trainer.is_global_zero:
            self._tidy(self._epochs)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the state before the first step."""
        if self._epochs:
            return
        self._found = trainer.strategy.broadcast(self._found)
        self.best = self._found.get(self._monitor, math.nan)
        if trainer.is_global_zero:
            self._start = {
                name: value.detach().to("cpu", copy=True) if isinstance(value, Tensor) else value
                for name, value in pl_module.state_dict().items()
            }

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the epoch, and before it the state before the first one, if that is better."""
        epoch, found = trainer.current_epoch + 1, dict(cast(Training, pl_module).found)
        if is_better(found[self._monitor], self.best, self._mode):
            self.best_epoch, self.best = epoch, found[self._monitor]
        elif self._start is not None:
            content = {"state_dict": self._start, **self._describe(self._start)}
            write_checkpoint(self._folder / checkpoint_name(BEST, 0), content)
        self._start, self._epochs, self._found = None, epoch, found
        trainer.save_checkpoint(self._folder / checkpoint_name(LAST, epoch))
        if trainer.is_global_zero:
            self._tidy(epoch)
        trainer.strategy.barrier("the best epoch is linked")

    def _describe(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Return the facts of a state; of a float network also what makes the file one that is loaded as any."""
        facts = {**self._facts, "epoch": self._epochs, "metrics": dict(self._found)}
        as_float = facts["policy"] is None and knows_network(facts)
        return {**(as_float_checkpoint(facts, state) if as_float else {}), FACTS: facts}

    def _tidy(self, epoch: int) -> None:
        """Link the best epoch if it is this one, then remove what was there before and is neither last nor best."""
        last = self._folder / checkpoint_name(LAST, epoch)
        if self.best_epoch == epoch:
            _link(last, self._folder / checkpoint_name(BEST, epoch))
        kept = [(LAST, epoch), (BEST, self.best_epoch)]
        for kind, number in self._kept:
            if (kind, number) not in kept:
                (self._folder / checkpoint_name(kind, number)).unlink(missing_ok=True)
        self._kept = kept


def is_better(value: float, best: float, mode: Literal["max", "min"]) -> bool:
    """Return whether a metric is better than the best so far; NaN never is."""
    if math.isnan(best) or math.isnan(value):
        return math.isnan(best) and not math.isnan(value)
    return value > best if mode == "max" else value < best


def _link(source: Path, target: Path) -> None:
    """Give a file a second name; where the file system has no links, a copy."""
    with written_whole(target) as beside:
        try:
            os.link(source, beside)
        except OSError:
            shutil.copyfile(source, beside)
