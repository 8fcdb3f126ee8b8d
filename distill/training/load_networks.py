"""The networks that a run file names: float network, student and teacher."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from hessrank.distill.run_file import RunFile, Settings
from hessrank.distill.tasks.base import Task
from hessrank.distill.training.inputs.task_data import TaskData
from hessrank.distill.training.networks import FloatNetwork, make_student, quantize_network
from hessrank.distill.training.outputs.load_trained import holds_trained, is_trained, load_trained, peek
from hessrank.errors import HessrankError
from hessrank.models import LoadedModel, load_model
from hessrank.models.architecture import Architecture, arch_name, build
from hessrank.models.model_checkpoint import is_checkpoint
from hessrank.models.size_check import limit_size
from hessrank.quant.policy import Policy
from hessrank.quant.prepare import QuantizedModel, load_state

_UNTRAINED = (
    "the ranges are those of an untrained network: quantized from the start it may learn little; train with quant: "
    "false first, then quantize what that gives"
)


def load_float_network(run: RunFile, task: Task) -> FloatNetwork:
    """Load the float network that a run file names, or make a new one.

    Raises:
        LoadError: a key is missing or left over, or the file is no model.
    """
    path = run.beside(run.keys.load_model)
    if path is None:
        return _make_new_network(run, task)
    content = peek(path)
    if holds_trained(content):
        raise run.error(
            f"load_model: {path} is a trained quantized network: give its float network, this as load_quant_model "
            "(or test: true, to judge it)",
            "load_model",
        )
    loaded = _load(run, path, task, run.keys.arch_args, run.keys.weights_key, ours=is_checkpoint(content))
    notes = _describe_keys("load_model", loaded)
    return FloatNetwork(loaded.model, _name_builder(run, task), loaded.arch_args, notes)


def _make_new_network(run: RunFile, task: Task) -> FloatNetwork:
    """Build a network, and draw its weights as the task says."""
    arch, from_data = _find_architecture(run, task)
    arguments = from_data | (run.keys.arch_args or {})
    with run.locating("arch", "arch_args"), limit_size(None):
        model = build(arch, arguments, source=arch_name(arch))
    task.initialize(model)
    note = "no load_model: the network starts from random weights"
    return FloatNetwork(model, _name_builder(run, task), arguments, (note,))


def _find_architecture(run: RunFile, task: Task) -> tuple[Architecture, dict[str, Any]]:
    """Return what builds the network, and the arguments that the task's data ask for (a number of classes)."""
    if run.keys.arch is not None:
        return run.reference(run.keys.arch), {}
    made = task.model
    return (made.func, dict(made.keywords)) if isinstance(made, partial) else (made, {})


def _name_builder(run: RunFile, task: Task) -> str:
    """Return what builds the network as others can name it: the file's ``arch``, or a class of hessrank."""
    if run.keys.arch is not None:
        return run.keys.arch
    arch, _ = _find_architecture(run, task)
    ours = isinstance(arch, type) and arch.__module__.startswith("hessrank.")
    return arch_name(arch) if ours else ""


def _load(
    run: RunFile, path: Path, task: Task, arguments: dict[str, Any] | None, weights_key: str | None, *, ours: bool
) -> LoadedModel:
    """Load a float network; a checkpoint of ours knows its arguments, unless others are given."""
    arch, from_data = _find_architecture(run, task)
    own = None if arguments is None and (not from_data or ours) else from_data | (arguments or {})
    return load_model(
        path,
        arch=arch,
        arch_args=own,
        trust_pickle=run.trusted,
        weights_key=weights_key,
        ignore_keys=run.keys.ignore_keys or (),
    )


def _describe_keys(key: str, loaded: LoadedModel) -> tuple[str, ...]:
    """Return how completely a file was loaded: loading stops if a key is missing or left over."""
    count = len(loaded.model.state_dict())
    left_over = f"{len(loaded.ignored_keys)} left out" if loaded.ignored_keys else "none left over"
    return (f"{key} {loaded.path}: all {count} keys loaded, {left_over}", *loaded.notes)


def load_student(
    run: RunFile, network: FloatNetwork, data: TaskData, settings: Settings
) -> tuple[nn.Module, tuple[str, ...]]:
    """Return the student of a run with the state that it loads; and what to say.

    Raises:
        HessrankError: the policy does not fit the network, or the state the quantized one.
    """
    student = make_student(network.model, run.student_policy, data, settings)
    if not isinstance(student, QuantizedModel):
        return student, ()
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


def load_teacher(
    run: RunFile, network: FloatNetwork, data: TaskData, settings: Settings
) -> tuple[nn.Module | None, tuple[str, ...]]:
    """Return the teacher of a run, or None without distillation; and what to say.

    Raises:
        HessrankError: it cannot be loaded, or its policy does not fit it.
    """
    keys = run.keys
    if not run.policy.distill_config:
        return None, ()
    path = run.beside(keys.load_teacher_model)
    model, notes = (network.model, ()) if path is None else _load_other_teacher(run, path, data.task)
    if isinstance(model, QuantizedModel) and keys.quant_teacher:
        notes = (*notes, "quant_teacher does nothing: the teacher is quantized already")
    if not keys.quant_teacher or isinstance(model, QuantizedModel):
        return model, notes
    own = run.beside(keys.teacher_policy)
    policy = run.policy if own is None else Policy.read(own, plugins=run.plugins)
    return quantize_network(model, policy, data, settings), notes


def _load_other_teacher(run: RunFile, path: Path, task: Task) -> tuple[nn.Module, tuple[str, ...]]:
    """Load a teacher that is not the float network: a trained quantized one, or another float one."""
    keys, content = run.keys, peek(path)
    if holds_trained(content):
        arch, _ = _find_architecture(run, task)
        trained = load_trained(path, arch=arch, arch_args=keys.teacher_arch_args, plugins=run.plugins)
        return trained, (f"load_teacher_model {path}: all {len(trained.state_dict())} keys loaded, none left over",)
    own = keys.arch_args if keys.teacher_arch_args is None else keys.teacher_arch_args
    loaded = _load(run, path, task, own, keys.teacher_weights_key, ours=is_checkpoint(content))
    return loaded.model, _describe_keys("load_teacher_model", loaded)
