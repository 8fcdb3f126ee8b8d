"""From a run file to a training: the networks and data that its keys name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from hessrank.distill.run_file import RunFile, Settings
from hessrank.distill.tasks.base import Task
from hessrank.distill.tasks.find import make_task
from hessrank.distill.training.baseline import START
from hessrank.distill.training.callbacks.checkpoints import BEST, LAST, file_name
from hessrank.distill.training.callbacks.metrics_files import METRICS, STEPS
from hessrank.distill.training.callbacks.progress import Report
from hessrank.distill.training.inputs.devices import choose_devices, cpu_threads
from hessrank.distill.training.inputs.loaders import seeded
from hessrank.distill.training.inputs.timeout import within
from hessrank.distill.training.outputs.checkpoint_facts import facts_of
from hessrank.distill.training.outputs.identity import identity_of_run
from hessrank.distill.training.outputs.load_trained import holds_trained, is_trained, load_trained, peek
from hessrank.distill.training.outputs.result import RESULT, TrainResult
from hessrank.distill.training.outputs.run_folder import is_beginning, writing_folder
from hessrank.distill.training.own_policy import with_own_policy
from hessrank.distill.training.plan import Job, Materials, make_job, materials_of, notes_of, quantized
from hessrank.distill.training.run import work
from hessrank.errors import DataError, HessrankError
from hessrank.main_process import is_main_process
from hessrank.models import LoadedModel, load_model
from hessrank.models.architecture import Architecture, arch_name, build
from hessrank.models.model_checkpoint import is_checkpoint
from hessrank.models.size_check import limit_size
from hessrank.models.wrappers import copy_network
from hessrank.quant.export import export_onnx, require_onnx
from hessrank.quant.policy import Policy, PolicyError
from hessrank.quant.prepare import QuantizedModel, load_state
from hessrank.terminal import say

ONNX = "model.onnx"
TRIAL_EPOCHS = 2
_PATHS = ("load_model", "load_quant_model", "load_teacher_model", "teacher_policy")


@dataclass(frozen=True)
class Float:
    """A float network and where it comes from.

    Attributes:
        model: the network.
        arch: what builds it, as a checkpoint names it; empty if a task that is not hessrank's does.
        arch_args: its arguments.
        notes: what was done on the way.
    """

    model: nn.Module
    arch: str
    arch_args: dict[str, Any]
    notes: tuple[str, ...]


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
    keys = run.keys
    if keys.onnx:
        require_onnx()
    devices = choose_devices(keys.gpu_id, keys.devices)
    if is_main_process():
        say("loads the network and the data" + (", takes ranges from training samples" if keys.quant else ""))
    folder = _folder(run, out)
    with writing_folder(folder):
        if _is_trial(run):
            _clear_trial(folder)
        with seeded(keys.seed), cpu_threads(keys.threads):
            job = job_of(run, folder)
            result = work(job, devices, resume=resume, say=say, report=report, debug=keys.debug, judge_only=keys.test)
        if keys.onnx and isinstance(result.model, QuantizedModel) and is_main_process():
            one = job.materials.one
            say(str(export_onnx(result.model, result.folder / ONNX, one.kwargs or one.args)))
        return result


def _folder(run: RunFile, out: Path | None) -> Path:
    """Return the folder to write to; a trial has one of its own."""
    folder = run.out if out is None else out
    return folder.with_name(f"{folder.name}-debug") if _is_trial(run) else folder


def _is_trial(run: RunFile) -> bool:
    return run.keys.debug and not run.keys.test


def _clear_trial(trial: Path) -> None:
    """Remove what the trial before this one wrote and this one may not write over."""
    if is_beginning(trial / START) and is_main_process():
        saved = [file_name(kind, epoch) for kind in (LAST, BEST) for epoch in range(TRIAL_EPOCHS + 1)]
        for name in (*saved, METRICS, STEPS, RESULT):
            (trial / name).unlink(missing_ok=True)


def job_of(run: RunFile, folder: Path) -> Job:
    """Put together what a run file names; nothing is written.

    Raises:
        HessrankError: something is not there, or does not fit.
    """
    run, known = with_own_policy(run)
    keys, settings = run.keys, settings_of(run)
    if keys.debug:
        settings = settings.model_copy(update={"epochs": min(settings.epochs, TRIAL_EPOCHS)})
    _require_files(run)
    task = task_of(run)
    network = float_network(run, task)
    with _at(run, "data"):
        materials = materials_of(task, network.model, settings)
    policy = run.policy if keys.quant else None
    student, loaded = _student(run, network, materials, settings)
    facts = facts_of(
        student,
        policy,
        settings,
        materials,
        arch=network.arch,
        arch_args=network.arch_args,
        identity=identity_of_run(run),
    )
    alone = keys.test and bool(loaded) and keys.load_model is None
    if alone and keys.load_teacher_model is None:
        run = replace(run, policy=run.policy.model_copy(update={"distill_config": (), "distill_coeff": ()}))
    teacher, taught = _teacher(run, network, materials, settings)
    first = ("no load_model: no float network is judged beside it",) if alone else network.notes
    notes = (*first, *task.notes, *known, *loaded, *taught, *notes_of(student), *_unused(run))
    with _at(run, "distill_config", "distill_loss"):
        job = make_job(network.model, student, teacher, run.policy, materials, settings, folder, facts, notes)
    return replace(job, has_float=not alone)


def task_of(run: RunFile) -> Task:
    """Make the task that a run file names, waiting for its data as long as the settings allow."""
    keys, folder = run.keys, run.path.parent
    with _at(run, "task", "data", "task_args"):
        make = partial(make_task, run.reference(keys.task), keys.data, folder, keys.seed, keys.task_args)
        return within(keys.data_timeout, "the training data", make)


@contextmanager
def _at(run: RunFile, *keys: str) -> Iterator[None]:
    """Put the place of the last of ``keys`` that the file gives, or of its data, before what goes wrong."""
    try:
        yield
    except PolicyError:
        raise
    except HessrankError as error:
        given = [key for key in keys if key in run.given]
        if not given:
            raise
        blamed = "data" if isinstance(error, DataError) and "data" in given else given[-1]
        raise run.error(str(error), blamed) from error


def settings_of(run: RunFile) -> Settings:
    """Return the part of a run file that says how to train."""
    return Settings.model_validate({name: getattr(run.keys, name) for name in Settings.model_fields})


def _require_files(run: RunFile) -> None:
    for name in _PATHS:
        path = run.beside(getattr(run.keys, name))
        if path is not None and not path.exists():
            raise run.error(f"{name}: there is no file {path}", name)


def _architecture(run: RunFile, task: Task) -> tuple[Architecture, dict[str, Any]]:
    """Return what builds the network, and the arguments that the task's data ask for (a number of classes)."""
    if run.keys.arch is not None:
        return run.reference(run.keys.arch), {}
    made = task.model
    return (made.func, dict(made.keywords)) if isinstance(made, partial) else (made, {})


def float_network(run: RunFile, task: Task) -> Float:
    """Load the float network that a run file names, or make a new one.

    Raises:
        LoadError: a key is missing or left over, or the file is no model.
    """
    keys, (arch, wanted) = run.keys, _architecture(run, task)
    path = run.beside(keys.load_model)
    held = None if path is None else peek(path)
    if holds_trained(held):
        raise run.error(
            f"load_model: {path} is a trained quantized network: give its float network, this as load_quant_model "
            "(or test: true, to judge it)",
            "load_model",
        )
    if path is None:
        arguments = wanted | (keys.arch_args or {})
        with _at(run, "arch", "arch_args"), limit_size(None):
            model = build(arch, arguments, source=arch_name(arch))
        task.initialize(model)
        note = "no load_model: the network starts from random weights"
        return Float(model, _recorded(run, arch), arguments, (note,))
    loaded = _loaded(run, path, task, keys.arch_args, keys.weights_key, ours=is_checkpoint(held))
    return Float(loaded.model, _recorded(run, arch), loaded.arch_args, _told("load_model", loaded))


def _recorded(run: RunFile, arch: Architecture) -> str:
    """Return what builds the network as others can name it: the file's ``arch``, or a class of hessrank."""
    if run.keys.arch is not None:
        return run.keys.arch
    ours = isinstance(arch, type) and arch.__module__.startswith("hessrank.")
    return arch_name(arch) if ours else ""


def _loaded(
    run: RunFile, path: Path, task: Task, arguments: dict[str, Any] | None, weights_key: str | None, *, ours: bool
) -> LoadedModel:
    """Load a float network; a checkpoint of ours knows its arguments, unless others are given."""
    arch, wanted = _architecture(run, task)
    own = None if arguments is None and (not wanted or ours) else wanted | (arguments or {})
    return load_model(
        path,
        arch=arch,
        arch_args=own,
        trust_pickle=run.trusted,
        weights_key=weights_key,
        ignore_keys=run.keys.ignore_keys or (),
    )


def _told(key: str, loaded: LoadedModel) -> tuple[str, ...]:
    """Return how completely a file was loaded: loading stops if a key is missing or left over."""
    count = len(loaded.model.state_dict())
    left_over = f"{len(loaded.ignored_keys)} left out" if loaded.ignored_keys else "none left over"
    return (f"{key} {loaded.path}: all {count} keys loaded, {left_over}", *loaded.notes)


def _student(
    run: RunFile, network: Float, materials: Materials, settings: Settings
) -> tuple[nn.Module, tuple[str, ...]]:
    if not run.keys.quant:
        return copy_network(network.model), ()
    student = quantized(network.model, run.policy, materials, settings)
    path = run.beside(run.keys.load_quant_model)
    if path is None:
        untrained = run.keys.load_model is None
        return student, ((_UNTRAINED,) if untrained else ())
    try:
        load_state(student, path)
    except HessrankError as error:
        remedy = "; leave the policy's keys out: the checkpoint has its own" if is_trained(path) else ""
        raise run.error(f"load_quant_model: {error}{remedy}", "load_quant_model") from error
    return student, (f"load_quant_model {path}: all {len(student.state_dict())} keys loaded, none left over",)


_UNTRAINED = (
    "the ranges are those of an untrained network: quantized from the start it may learn little; train with quant: "
    "false first, then quantize what that gives"
)


def _teacher(
    run: RunFile, network: Float, materials: Materials, settings: Settings
) -> tuple[nn.Module | None, tuple[str, ...]]:
    """Return the teacher, None where the float network itself teaches or nothing is distilled; and what to say."""
    keys = run.keys
    if not run.policy.distill_config:
        return None, ()
    path = run.beside(keys.load_teacher_model)
    model, notes = (network.model, ()) if path is None else _loaded_teacher(run, path, materials)
    if isinstance(model, QuantizedModel) and keys.quant_teacher:
        notes = (*notes, "quant_teacher does nothing: the teacher is quantized already")
    if not keys.quant_teacher or isinstance(model, QuantizedModel):
        return model, notes
    own = run.beside(keys.teacher_policy)
    policy = run.policy if own is None else Policy.read(own, plugins=run.plugins)
    return quantized(model, policy, materials, settings), notes


def _loaded_teacher(run: RunFile, path: Path, materials: Materials) -> tuple[nn.Module, tuple[str, ...]]:
    keys = run.keys
    held = peek(path)
    if holds_trained(held):
        arch, _ = _architecture(run, materials.task)
        trained = load_trained(path, arch=arch, arch_args=keys.teacher_arch_args, plugins=run.plugins)
        return trained, (f"load_teacher_model {path}: all {len(trained.state_dict())} keys loaded, none left over",)
    own = keys.arch_args if keys.teacher_arch_args is None else keys.teacher_arch_args
    loaded = _loaded(run, path, materials.task, own, keys.teacher_weights_key, ours=is_checkpoint(held))
    return loaded.model, _told("load_teacher_model", loaded)


def _unused(run: RunFile) -> tuple[str, ...]:
    """Return a sentence for every key that does nothing in this run."""
    keys, hints = run.keys, run.policy.distill_config
    idle = {
        "teacher_arch_args": keys.load_teacher_model is None,
        "teacher_weights_key": keys.load_teacher_model is None,
        "weights_key": keys.load_model is None,
        "ignore_keys": keys.load_model is None and keys.load_teacher_model is None,
        **dict.fromkeys(("distill_loss", "distill_temperature", "distill_warmup"), not hints),
        "load_quant_model": not keys.quant,
        "onnx": not keys.quant,
        "load_teacher_model": not hints,
        "quant_teacher": not hints,
        "teacher_policy": not (keys.quant_teacher and hints),
    }
    return tuple(
        f"{name} does nothing: {_why_idle(name, bool(hints))}"
        for name, nothing in idle.items()
        if nothing and name in run.given and getattr(keys, name)
    )


def _why_idle(name: str, hints: bool) -> str:
    if name in ("load_quant_model", "onnx"):
        return "quant is false"
    if name in ("weights_key", "ignore_keys"):
        return "there is no load_model"
    of_teacher = name in ("teacher_arch_args", "teacher_weights_key")
    return "there is no load_teacher_model" if hints and of_teacher else "nothing is to be distilled"
