"""A job from its first look at the data to its result on disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pandas as pd
import torch

from hessrank.distill.training.baseline import Before, measure, tell
from hessrank.distill.training.callbacks.progress import Report
from hessrank.distill.training.inputs.devices import Devices
from hessrank.distill.training.loop.fit import TRIAL_STEPS, Fitted, fit, load_best
from hessrank.distill.training.outputs.curves import CURVES, plot_curves
from hessrank.distill.training.outputs.load_trained import untrained_notes
from hessrank.distill.training.outputs.result import TrainResult
from hessrank.distill.training.outputs.run_folder import open_folder
from hessrank.distill.training.plan import Job
from hessrank.errors import OptionError
from hessrank.files.atomic_write import written_whole
from hessrank.main_process import is_main_process


def work(
    job: Job,
    devices: Devices,
    *,
    resume: bool,
    say: Callable[[str], None],
    report: Report | None = None,
    debug: bool = False,
    judge_only: bool = False,
) -> TrainResult:
    """Look at the data, judge the networks, train, and write the result.

    Args:
        job: what to train; its student is trained in place.
        devices: where.
        resume: go on from the last checkpoint in the job's folder.
        say: is told what the run starts from.
        report: is told how far it is.
        debug: only a few batches an epoch.
        judge_only: stop before the first step.

    Raises:
        HessrankError: as ``hessrank.train``.
    """
    if devices.accelerator == "cpu" and job.settings.precision == "16":
        raise OptionError("precision 16 needs a GPU: take bf16 on the CPU")
    main = is_main_process()
    last = open_folder(job.folder, job.facts, resume=resume, judge_only=judge_only or not main)
    if main:
        say("judges the networks on the validation data" + ("" if judge_only else ", before the first step"))
    before = measure(job, devices.first, judged=main)
    if debug and before.steps is not None:
        before = replace(before, steps=min(before.steps, TRIAL_STEPS))
    if main:
        for line in filter(None, (devices.note, last and f"goes on from {last.path.name}")):
            say(f"note: {line}")
        tell(before, job, say, judge_only=judge_only)
    if main and job.settings.num_nodes > 1:
        say(f"waits for {job.settings.num_nodes} machines; each is told MASTER_ADDR, MASTER_PORT and its NODE_RANK")
    trains = not judge_only and job.settings.epochs > 0
    done = fit(job, devices, before, resume=last, debug=debug, report=report) if trains else None
    result = _finished(job, before, done)
    if main and not judge_only:
        _write(result)
        for note in result.notes[len(job.notes) :]:
            say(f"note: {note}")
    return result


def _finished(job: Job, before: Before, done: Fitted | None) -> TrainResult:
    """Return the student with its best weights, on the CPU."""
    student = job.networks.student
    if done is not None:
        load_best(job, done.best_epoch)
    student.to(torch.device("cpu")).eval()
    rows = pd.DataFrame() if done is None else done.rows
    epoch = 0 if done is None else done.best_epoch
    untrained = () if done is None or epoch else untrained_notes(job.materials.task.monitor)
    notes = (*job.notes, *untrained)
    return TrainResult(student, rows, before.metrics, epoch, job.folder, job.student_name, notes)


def _write(result: TrainResult) -> None:
    if not result.metrics.empty:
        with written_whole(result.folder / CURVES) as beside:
            plot_curves(result.metrics, result.before).savefig(beside, dpi=120)
    result.write()  # the last file: it says that the training is over
