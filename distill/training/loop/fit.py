"""Runs a training: Lightning's loop, with what hessrank keeps of it."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pandas as pd
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from hessrank.distill.training.baseline import Before
from hessrank.distill.training.callbacks.checkpoints import BEST, Checkpoints, WholeFiles, file_name
from hessrank.distill.training.callbacks.interrupts import Interrupts
from hessrank.distill.training.callbacks.metrics_files import Records
from hessrank.distill.training.callbacks.pictures import Pictures, answers, chosen_samples
from hessrank.distill.training.callbacks.progress import Progress, Report
from hessrank.distill.training.inputs.devices import Devices
from hessrank.distill.training.inputs.loaders import Place, seed_all, training_loader, validation_loader
from hessrank.distill.training.loop.lightning_module import Training
from hessrank.distill.training.outputs.load_trained import read_trained
from hessrank.distill.training.outputs.run_folder import Resumed
from hessrank.distill.training.plan import Job
from hessrank.errors import HessrankError, LoadError, OutputError
from hessrank.files.atomic_write import DISK_FULL
from hessrank.files.paths import readable_file
from hessrank.main_process import is_main_process
from hessrank.models.match_weights import load_weights
from hessrank.text import one_line

TRIAL_STEPS = 4
"""Batches an epoch of a trial."""


@dataclass(frozen=True)
class Fitted:
    """What a training ended with.

    Attributes:
        rows: one an epoch, as in ``metrics.csv``.
        best_epoch: the best one, counted from 1; 0 if none was better than the state before the first step.
    """

    rows: pd.DataFrame
    best_epoch: int


class Batches(LightningDataModule):
    """The data of a job, for the process that asks."""

    def __init__(self, job: Job, epoch: int) -> None:
        """Hand out the job's data, from ``epoch`` on; Lightning asks before it knows where a resumed run is."""
        super().__init__()
        self._job, self._epoch = job, epoch

    def train_dataloader(self) -> Any:
        """Return this process's training batches."""
        return training_loader(self._job.materials.training, self._job.settings, self._place, self._epoch)

    def val_dataloader(self) -> Any:
        """Return this process's validation batches."""
        materials = self._job.materials
        return validation_loader(
            materials.validation, materials.task.validation_batch_size, self._job.settings, self._place
        )

    @property
    def _place(self) -> Place:
        assert self.trainer is not None
        return Place(self.trainer.global_rank, self.trainer.world_size)


class EpochSeeds(Callback):
    """Seeds torch, numpy and Python by (seed, epoch, process): an epoch is the same whatever came before it."""

    def __init__(self, seed: int) -> None:
        """Start from ``seed``."""
        self._seed = seed

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Seed."""
        seed_all(self._seed, trainer.current_epoch, trainer.global_rank, 0)


def fit(
    job: Job,
    devices: Devices,
    before: Before,
    *,
    resume: Resumed | None = None,
    debug: bool = False,
    report: Report | None = None,
) -> Fitted:
    """Train a job's student in place.

    Args:
        job: what to train.
        devices: where.
        before: the number of steps, for the schedule; the metrics that an epoch has to beat.
        resume: where to go on from.
        debug: only a few batches an epoch.
        report: is told ``(stage, done, total)``.

    Raises:
        DivergedError: the loss or a weight is not finite any more; the last epoch's checkpoint is good.
        LoadError: the checkpoint to go on from does not hold what that takes.
        OutputError: a file cannot be written; the last epoch's checkpoint is good.
        KeyboardInterrupt: likewise.
    """
    settings, epoch = job.settings, resume.epoch if resume else 0
    total_steps = (before.steps or 0) * settings.epochs
    module = Training(job.networks, job.materials.task, job.distillation, settings, total_steps)
    records = Records(job.folder, settings)
    task, start = job.materials.task, before.metrics.get(job.student_name, {})
    keeper = Checkpoints(job.folder, task.monitor, task.mode, job.facts, start, epoch)
    interrupts = Interrupts()
    callbacks = [EpochSeeds(settings.seed), Progress(report), interrupts, *_pictures(job, devices), records, keeper]
    with quiet_lightning(), interrupts.listening():
        trainer = Trainer(
            accelerator=devices.accelerator,
            devices=devices.devices,
            num_nodes=settings.num_nodes,
            strategy="auto" if devices.count * settings.num_nodes == 1 else "ddp_find_unused_parameters_true",
            precision=_PRECISIONS[settings.precision],
            max_epochs=settings.epochs,
            limit_train_batches=TRIAL_STEPS if debug else None,
            limit_val_batches=TRIAL_STEPS if debug else None,
            gradient_clip_val=settings.clip_gradients,
            logger=_Log(job.folder, "tensorboard", "", purge_step=resume.step if resume else None),
            callbacks=callbacks,
            plugins=[WholeFiles()],
            default_root_dir=job.folder,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
        )
        try:
            trainer.fit(
                module, datamodule=Batches(job, epoch), ckpt_path=resume.path if resume else None, weights_only=True
            )
        except SystemExit as stop:  # Lightning's way to end on Ctrl-C
            raise KeyboardInterrupt(f"{job.folder} holds the epochs that were finished: go on with resume") from stop
        except OSError as error:
            if error.errno not in DISK_FULL:
                raise
            raise OutputError(
                f"{job.folder}: cannot be written: {error.strerror}; the epochs that were finished are there: make "
                "room, and go on with resume (--resume)"
            ) from error
        except Exception as error:
            if resume is None or module.begun or isinstance(error, HessrankError):
                raise
            raise LoadError(
                f"{resume.path}: nothing to go on from ({one_line(error)}): train anew in another folder"
            ) from error
    return Fitted(pd.DataFrame(records.rows), keeper.best_epoch)


class _Log(TensorBoardLogger):
    """Writes to its folder as it is called: Lightning takes ``$HOME`` in a name for another folder."""

    @property
    def log_dir(self) -> str:
        """Where the events go."""
        return self.root_dir


_PRECISIONS: dict[str, Any] = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}


def load_best(job: Job, epoch: int) -> None:
    """Give the student its best weights: of an epoch, or, of epoch 0, those before the first step.

    Raises:
        LoadError: there is no checkpoint of it, or it is damaged.
    """
    path = readable_file(job.folder / file_name(BEST, epoch), error=LoadError)
    load_weights(job.networks.student, read_trained(path)[0]["state_dict"], source=str(path))


def _pictures(job: Job, devices: Devices) -> list[Callback]:
    """Return what draws example pictures, in the process that does."""
    if not is_main_process():
        return []
    task, settings = job.materials.task, job.settings
    count = settings.pictures and max(settings.pictures, task.picture_candidates)
    samples = chosen_samples(job.materials.validation, job.networks.signature, count)
    floats = answers(job.networks.signature.to(devices.first).eval(), samples, devices.first)
    name = "trained" if job.student_name == "float" else job.student_name
    return [Pictures(job.folder, task, samples, floats, name, settings.pictures)] if samples else []


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Keep Lightning's advertisements and advice off the terminal; its errors are raised as ever.

    So is the traceback of TensorBoard's thread when the disk is full: the training hears of it at its next event.
    """
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    hook = threading.excepthook
    threading.excepthook = lambda told: None if isinstance(told.exc_value, OSError) else hook(told)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            warnings.filterwarnings("ignore", category=FutureWarning, module="torch")
            yield
    finally:
        threading.excepthook = hook
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
