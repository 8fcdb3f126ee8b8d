"""A planned training from its first look at the data to its result on disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pandas as pd
import torch

from hessrank.distill.training.baseline import Baseline, announce_start, measure_baseline
from hessrank.distill.training.callbacks.progress import Report
from hessrank.distill.training.fit import TRIAL_STEPS, FitResult, fit, load_best
from hessrank.distill.training.inputs.devices import Devices
from hessrank.distill.training.outputs.curves import plot_curves
from hessrank.distill.training.outputs.file_names import CURVES
from hessrank.distill.training.outputs.load_trained import untrained_notes
from hessrank.distill.training.outputs.result import TrainResult
from hessrank.distill.training.outputs.run_folder import open_folder
from hessrank.distill.training.plan import TrainingPlan
from hessrank.errors import OptionError
from hessrank.files.atomic_write import written_whole
from hessrank.main_process import is_main_process


def run_training(
    plan: TrainingPlan,
    devices: Devices,
    *,
    resume: bool,
    say: Callable[[str], None],
    report: Report | None = None,
    trial: bool = False,
    judge_only: bool = False,
) -> TrainResult:
    """Look at the data, judge the networks, train, and write the result.

    Args:
        plan: what to train; its student is trained in place.
        devices: where.
        resume: go on from the last checkpoint in the plan's folder.
        say: is told what the run starts from.
        report: is told how far it is.
        trial: only a few batches an epoch.
        judge_only: stop before the first step.

    Raises:
        HessrankError: as ``hessrank.train``.
    """
    settings, main = plan.settings, is_main_process()
    if devices.accelerator == "cpu" and settings.precision == "16":
        raise OptionError("precision 16 needs a GPU: take bf16 on the CPU")
    last = open_folder(plan.folder, plan.facts, resume=resume, judge_only=judge_only or not main)
    if main:
        say("judges the networks on the validation data" + ("" if judge_only else ", before the first step"))
    baseline = measure_baseline(plan, devices.first, judged=main)
    if trial and baseline.steps is not None:
        baseline = replace(baseline, steps=min(baseline.steps, TRIAL_STEPS))
    if main:
        for line in filter(None, (devices.note, last and f"goes on from {last.path.name}")):
            say(f"note: {line}")
        announce_start(baseline, plan, say, judge_only=judge_only)
    if main and settings.num_nodes > 1:
        say(f"waits for {settings.num_nodes} machines; each is told MASTER_ADDR, MASTER_PORT and its NODE_RANK")
    trains = not judge_only and settings.epochs > 0
    done = fit(plan, devices, baseline, resume=last, trial=trial, report=report) if trains else None
    result = _take_best(plan, baseline, done)
    if main and not judge_only:
        if not result.metrics.empty:
            with written_whole(result.folder / CURVES) as beside:
                plot_curves(result.metrics, result.before).savefig(beside, dpi=120)
        result.write()  # the last file: it says that the training is over
        for note in result.notes[len(plan.notes) :]:
            say(f"note: {note}")
    return result


def _take_best(plan: TrainingPlan, baseline: Baseline, done: FitResult | None) -> TrainResult:
    """Return the student with its best weights, on the CPU."""
    student = plan.networks.student
    if done is not None:
        load_best(plan, done.best_epoch)
    student.to(torch.device("cpu")).eval()
    rows = pd.DataFrame() if done is None else done.rows
    epoch = 0 if done is None else done.best_epoch
    untrained = () if done is None or epoch else untrained_notes(plan.data.task.monitor)
    name, notes = plan.networks.student_name, (*plan.notes, *untrained)
    return TrainResult(student, rows, baseline.metrics, epoch, plan.folder, name, notes)
