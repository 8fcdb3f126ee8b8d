"""Runs a training: Lightning's loop, with what hessrank keeps of it."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pandas as pd
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from hessrank.distill.training.baseline import Baseline
from hessrank.distill.training.callbacks.checkpoints import Checkpoints, WholeFiles
from hessrank.distill.training.callbacks.interrupts import Interrupts
from hessrank.distill.training.callbacks.metrics_files import MetricsFiles
from hessrank.distill.training.callbacks.pictures import EpochPictures, answers, chosen_samples
from hessrank.distill.training.callbacks.progress import Progress, Report
from hessrank.distill.training.inputs.devices import Devices
from hessrank.distill.training.inputs.loaders import ProcessRank, seed_all, training_loader, validation_loader
from hessrank.distill.training.loop.lightning_module import Training
from hessrank.distill.training.outputs.file_names import BEST, checkpoint_name
from hessrank.distill.training.outputs.load_trained import read_trained
from hessrank.distill.training.outputs.run_folder import Resumed
from hessrank.distill.training.plan import TrainingPlan
from hessrank.errors import HessrankError, LoadError, OutputError
from hessrank.files.atomic_write import DISK_FULL
from hessrank.files.paths import readable_file
from hessrank.main_process import is_main_process
from hessrank.models.match_weights import load_weights
from hessrank.text import one_line

TRIAL_STEPS = 4
"""Batches an epoch of a trial."""
_PRECISIONS: dict[str, Any] = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}


@dataclass(frozen=True)
class FitResult:
    """What a training ended with.

    Attributes:
        rows: one an epoch, as in ``metrics.csv``.
        best_epoch: the best one, counted from 1; 0 if none was better than the state before the first step.
    """

    rows: pd.DataFrame
    best_epoch: int


class Batches(LightningDataModule):
    """The data of a training, for the process that asks."""

    def __init__(self, plan: TrainingPlan, epoch: int) -> None:
        """Hand out the plan's data, from ``epoch`` on; Lightning asks before it knows where a resumed run is."""
        super().__init__()
        self._data, self._settings, self._epoch = plan.data, plan.settings, epoch

    def train_dataloader(self) -> Any:
        """Return this process's training batches."""
        return training_loader(self._data.training, self._settings, self._process, self._epoch)

    def val_dataloader(self) -> Any:
        """Return this process's validation batches."""
        size = self._data.task.validation_batch_size
        return validation_loader(self._data.validation, size, self._settings, self._process)

    @property
    def _process(self) -> ProcessRank:
        assert self.trainer is not None
        return ProcessRank(self.trainer.global_rank, self.trainer.world_size)


class EpochSeeds(Callback):
    """Seeds torch, numpy and Python by (seed, epoch, process).

    So an epoch is the same whatever came before it.
    """

    def __init__(self, seed: int) -> None:
        """Start from ``seed``."""
        self._seed = seed

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Seed."""
        seed_all(self._seed, trainer.current_epoch, trainer.global_rank, 0)


def fit(
    plan: TrainingPlan,
    devices: Devices,
    baseline: Baseline,
    *,
    resume: Resumed | None = None,
    trial: bool = False,
    report: Report | None = None,
) -> FitResult:
    """Train a plan's student in place.

    Args:
        plan: what to train.
        devices: where.
        baseline: the number of steps, for the schedule; the metrics that an epoch has to beat.
        resume: where to go on from.
        trial: only a few batches an epoch.
        report: is told ``(stage, done, total)``.

    Raises:
        DivergedError: the loss or a weight is not finite any more; the last epoch's checkpoint is good.
        LoadError: the checkpoint to go on from does not hold what that takes.
        OutputError: a file cannot be written; the last epoch's checkpoint is good.
        KeyboardInterrupt: likewise.
    """
    settings, task, epoch = plan.settings, plan.data.task, resume.epoch if resume else 0
    total_steps = (baseline.steps or 0) * settings.epochs
    module = Training(plan.networks, task, plan.distillation, settings, total_steps)
    metrics_files = MetricsFiles(plan.folder, settings)
    start = baseline.metrics.get(plan.networks.student_name, {})
    checkpoints = Checkpoints(plan.folder, task.monitor, task.mode, plan.facts, start, epoch)
    interrupts = Interrupts()
    callbacks = [EpochSeeds(settings.seed), Progress(report), interrupts, *_make_pictures(plan, devices)]
    callbacks += [metrics_files, checkpoints]
    with quiet_lightning(), interrupts.listening():
        trainer = _make_trainer(plan, devices, callbacks, resume, trial)
        with _explaining_errors(plan, resume, module):
            trainer.fit(
                module, datamodule=Batches(plan, epoch), ckpt_path=resume.path if resume else None, weights_only=True
            )
    return FitResult(pd.DataFrame(metrics_files.rows), checkpoints.best_epoch)


def _make_trainer(
    plan: TrainingPlan, devices: Devices, callbacks: Sequence[Callback], resume: Resumed | None, trial: bool
) -> Trainer:
    settings = plan.settings
    return Trainer(
        accelerator=devices.accelerator,
        devices=devices.devices,
        num_nodes=settings.num_nodes,
        strategy="auto" if devices.count * settings.num_nodes == 1 else "ddp_find_unused_parameters_true",
        precision=_PRECISIONS[settings.precision],
        max_epochs=settings.epochs,
        limit_train_batches=TRIAL_STEPS if trial else None,
        limit_val_batches=TRIAL_STEPS if trial else None,
        gradient_clip_val=settings.clip_gradients,
        logger=_Log(plan.folder, "tensorboard", "", purge_step=resume.step if resume else None),
        callbacks=list(callbacks),
        plugins=[WholeFiles()],
        default_root_dir=plan.folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )


@contextmanager
def _explaining_errors(plan: TrainingPlan, resume: Resumed | None, module: Training) -> Iterator[None]:
    """Say what stopped a training and how to go on."""
    try:
        yield
    except SystemExit as stop:  # Lightning's way to end on Ctrl-C
        raise KeyboardInterrupt(f"{plan.folder} holds the epochs that were finished: go on with resume") from stop
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        raise OutputError(
            f"{plan.folder}: cannot be written: {error.strerror}; the epochs that were finished are there: make "
            "room, and go on with resume (--resume)"
        ) from error
    except Exception as error:
        if resume is None or module.begun or isinstance(error, HessrankError):
            raise
        raise LoadError(
            f"{resume.path}: nothing to go on from ({one_line(error)}): train anew in another folder"
        ) from error


class _Log(TensorBoardLogger):
    """Writes to its folder as it is called: Lightning takes ``$HOME`` in a name for another folder."""

    @property
    def log_dir(self) -> str:
        """Where the events go."""
        return self.root_dir


def load_best(plan: TrainingPlan, epoch: int) -> None:
    """Give the student its best weights; those of epoch 0 are from before training.

    Raises:
        LoadError: there is no checkpoint of it, or it is damaged.
    """
    path = readable_file(plan.folder / checkpoint_name(BEST, epoch), error=LoadError)
    load_weights(plan.networks.student, read_trained(path)[0]["state_dict"], source=str(path))


def _make_pictures(plan: TrainingPlan, devices: Devices) -> list[Callback]:
    """Return what draws example pictures, in the process that does."""
    if not is_main_process():
        return []
    networks, task, settings = plan.networks, plan.data.task, plan.settings
    count = settings.pictures and max(settings.pictures, task.picture_candidates)
    samples = chosen_samples(plan.data.validation, networks.signature, count)
    floats = answers(networks.signature.to(devices.first).eval(), samples, devices.first)
    name = "trained" if networks.student_name == "float" else networks.student_name
    return [EpochPictures(plan.folder, task, samples, floats, name, settings.pictures)] if samples else []


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Keep Lightning's advertisements off the terminal; its errors are raised.

    So is the traceback of TensorBoard's thread when the disk is full: the training hears of it at its next event.
    """
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    hook = threading.excepthook
    threading.excepthook = lambda failure: None if isinstance(failure.exc_value, OSError) else hook(failure)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            warnings.filterwarnings("ignore", category=FutureWarning, module="torch")
            yield
    finally:
        threading.excepthook = hook
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
