"""From a run file to a training: read the file, load what it names, plan, run, export."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from hessrank.distill.run_file import RunFile
from hessrank.distill.run_file.idle_keys import describe_idle_keys
from hessrank.distill.tasks.base import Task
from hessrank.distill.tasks.find import make_task
from hessrank.distill.teacher.loss_terms import hints_of
from hessrank.distill.training.callbacks.progress import Report
from hessrank.distill.training.checkpoint_policy import with_checkpoint_policy
from hessrank.distill.training.inputs.devices import choose_devices, cpu_threads
from hessrank.distill.training.inputs.loaders import seeded
from hessrank.distill.training.inputs.task_data import read_task_data
from hessrank.distill.training.inputs.timeout import within
from hessrank.distill.training.load_networks import load_float_network, load_student, load_teacher
from hessrank.distill.training.networks import StartingNetworks, describe_student
from hessrank.distill.training.outputs.file_names import (
    BEST,
    LAST,
    METRICS,
    ONNX,
    RESULT,
    START,
    STEPS,
    checkpoint_name,
)
from hessrank.distill.training.outputs.identity import identity_of_run
from hessrank.distill.training.outputs.result import TrainResult
from hessrank.distill.training.outputs.run_folder import is_beginning, writing_folder
from hessrank.distill.training.plan import TrainingPlan, plan_training
from hessrank.distill.training.run import run_training
from hessrank.main_process import is_main_process
from hessrank.quant.export import export_onnx, require_onnx
from hessrank.quant.prepare import QuantizedModel
from hessrank.terminal import say

TRIAL_EPOCHS = 2
_PATHS = ("load_model", "load_quant_model", "load_teacher_model", "teacher_policy")


def start(
    run: RunFile,
    *,
    resume: bool = False,
    say: Callable[[str], None] = say,
    report: Report | None = None,
    out: Path | None = None,
    trust_pickle: bool = False,
) -> TrainResult:
    """Do what a run file says: judge, train, or both.

    Args:
        run: the file.
        resume: go on from the last checkpoint in its folder.
        say: is told what the run starts from, line by line.
        report: is told ``(stage, done, total)``.
        out: folder to write to, instead of the file's.
        trust_pickle: whether the files that it loads may run code; a file's own ``trust_pickle`` is not enough.

    Raises:
        HessrankError: one line: what is wrong, and where.
    """
    run = run.trusting(trust_pickle)
    keys, folder = run.keys, run.out if out is None else out
    if keys.onnx:
        require_onnx()
    devices = choose_devices(keys.gpu_id, keys.devices)
    if is_main_process():
        say("loads the network and the data" + (", takes ranges from training samples" if keys.quant else ""))
    if run.is_trial:
        folder = folder.with_name(f"{folder.name}-debug")
    with writing_folder(folder):
        if run.is_trial and is_main_process():
            _remove_trial(folder)
        with seeded(keys.seed), cpu_threads(keys.threads):
            plan = plan_run(run, folder)
            result = run_training(
                plan, devices, resume=resume, say=say, report=report, trial=keys.debug, judge_only=keys.test
            )
        if keys.onnx and isinstance(result.model, QuantizedModel) and is_main_process():
            example = plan.data.example
            say(str(export_onnx(result.model, result.folder / ONNX, example.kwargs or example.args)))
        return result


def _remove_trial(folder: Path) -> None:
    """Remove what the trial before this one wrote and this one may not write over."""
    if is_beginning(folder / START):
        saved = [checkpoint_name(kind, epoch) for kind in (LAST, BEST) for epoch in range(TRIAL_EPOCHS + 1)]
        for name in (*saved, METRICS, STEPS, RESULT):
            (folder / name).unlink(missing_ok=True)


def plan_run(run: RunFile, folder: Path) -> TrainingPlan:
    """Plan the training that a run file describes; nothing is written.

    Args:
        run: the file.
        folder: where the training is to write.

    Raises:
        HessrankError: something is not there, or does not fit.
    """
    run, policy_notes = with_checkpoint_policy(run)
    keys, settings = run.keys, run.settings
    if keys.debug:
        settings = settings.model_copy(update={"epochs": min(settings.epochs, TRIAL_EPOCHS)})
    for name in _PATHS:
        path = run.beside(getattr(keys, name))
        if path is not None and not path.exists():
            raise run.error(f"{name}: there is no file {path}", name)
    task = task_of(run)
    network = load_float_network(run, task)
    with run.locating("data"):
        data = read_task_data(task, network.model, settings)
    policy = run.student_policy
    student, student_notes = load_student(run, network, data, settings)
    judges_float = not (keys.test and student_notes and keys.load_model is None)
    if not judges_float and keys.load_teacher_model is None:
        run = replace(run, policy=run.policy.model_copy(update={"distill_config": (), "distill_coeff": ()}))
    teacher, teacher_notes = load_teacher(run, network, data, settings)
    first = network.notes if judges_float else ("no load_model: no float network is judged beside it",)
    notes = (*first, *task.notes, *policy_notes, *student_notes, *teacher_notes)
    starting = StartingNetworks(network, student, policy, teacher, judges_float)
    with run.locating("distill_config", "distill_loss"):
        return plan_training(
            starting,
            data,
            hints_of(run.policy, settings),
            settings,
            folder,
            identity=identity_of_run(run),
            notes=(*notes, *describe_student(student), *describe_idle_keys(run)),
        )


def task_of(run: RunFile) -> Task:
    """Make the task that a run file names; wait for its data as the settings say."""
    keys, folder = run.keys, run.path.parent
    with run.locating("task", "data", "task_args"):
        make = partial(make_task, run.reference(keys.task), keys.data, folder, keys.seed, keys.task_args)
        return within(keys.data_timeout, "the training data", make)
