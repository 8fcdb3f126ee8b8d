"""A training put together and not yet begun: networks, data, losses, and what is to be said of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map

from hessrank.data.batch import Batch, make_batch
from hessrank.data.samples import as_samples
from hessrank.distill.run_file import Settings
from hessrank.distill.tasks.base import Task
from hessrank.distill.teacher.activations import tapped
from hessrank.distill.teacher.loss_terms import Distillation, hints_of
from hessrank.distill.teacher.teacher import Teacher, as_graph
from hessrank.distill.training.inputs.loaders import is_dataset
from hessrank.distill.training.inputs.timeout import within
from hessrank.distill.training.loop.lightning_module import Networks
from hessrank.errors import DataError, ModelError, OptionError, unknown_name
from hessrank.quant.layer_graph.quantizer_placement import IN_KERNEL
from hessrank.quant.policy import Policy
from hessrank.quant.prepare import QuantizedModel, prepare


@dataclass(frozen=True)
class Materials:
    """A task's data, read once, and one sample of it.

    Attributes:
        task: whose data they are.
        training: samples or a data loader.
        validation: likewise.
        one: the first training sample as a batch of one, without its target.
    """

    task: Task
    training: Any
    validation: Any
    one: Batch


@dataclass(frozen=True)
class Job:
    """A training.

    Attributes:
        networks: student and teacher.
        materials: the data.
        distillation: the terms of the hint layers; None without any.
        settings: how to train.
        folder: where to write.
        facts: what every checkpoint says of the network: architecture, policy, bits.
        notes: what the user should know before the first step.
        has_float: whether the weights of the float network are known; without, it is not judged.
    """

    networks: Networks
    materials: Materials
    distillation: Distillation | None
    settings: Settings
    folder: Path
    facts: Mapping[str, Any]
    notes: tuple[str, ...] = field(default=())
    has_float: bool = True

    @property
    def student_name(self) -> str:
        """What to call the student in tables and pictures."""
        return "quantized" if isinstance(self.networks.student, QuantizedModel) else "float"


def materials_of(task: Task, model: nn.Module, settings: Settings) -> Materials:
    """Read a task's data, waiting for them as long as the settings allow.

    Raises:
        DataError: there are none, they do not fit the network, or nothing comes in time.
    """
    seconds = settings.data_timeout
    training = within(seconds, "the training data", task.training_data)
    validation = within(seconds, "the validation data", task.validation_data)
    for what, data in {"training": training, "validation": validation}.items():
        if is_dataset(data) and len(as_samples(data)) == 0:
            raise DataError(f"there is no {what} data")

    def first() -> Batch:
        return make_batch(as_samples(training, 1), [0], model, needs_target=True)

    one = within(seconds, "the training data", first)
    return Materials(task, training, validation, Batch(one.args, one.kwargs))


def first_sample(data: Any) -> Any:
    """Return the first sample of a data set, or of a data loader."""
    return as_samples(data, 1)[0]


def quantized(model: nn.Module, policy: Policy, materials: Materials, settings: Settings) -> QuantizedModel:
    """Return ``model`` quantized as a policy says, its ranges taken from training samples."""
    return prepare(
        model,
        policy,
        materials.training,
        num_samples=settings.calibration_samples,
        batch_size=min(settings.batch_size, settings.calibration_samples),
        freeze_bn=settings.freeze_bn,
    )


def make_job(
    model: nn.Module,
    student: nn.Module,
    teacher: nn.Module | None,
    policy: Policy,
    materials: Materials,
    settings: Settings,
    folder: Path,
    facts: Mapping[str, Any],
    notes: tuple[str, ...] = (),
) -> Job:
    """Put a training together.

    Args:
        model: the float network; its ``forward`` binds the data's fields.
        student: what is trained: a quantized network, or a copy of ``model``.
        teacher: whose activations are the target of the policy's hint layers; None takes ``model``.
        policy: its distillation lists.
        materials: the data.
        settings: how to train.
        folder: where to write.
        facts: for the checkpoints.
        notes: what is known so far.

    Raises:
        UnknownNameError: a layer that student or teacher has not; a ``monitor`` that is no metric.
        LossError: activations that do not compare.
        OptionError: no loss is left.
        ModelError: weights in half precision.
    """
    hints = hints_of(policy, settings)
    _check(model, materials.task, settings, bool(hints))
    if not hints:
        networks = Networks(model, student, as_nodes(student))
        return Job(networks, materials, None, settings, folder, facts, notes)
    graph = as_graph(student, materials.one)
    layers = [hint.layer for hint in hints]
    try:
        taught = Teacher(model if teacher is None else teacher, materials.one, layers)
    except ModelError as error:
        raise ModelError(f"the teacher: {error}") from error
    device = next(student.parameters()).device
    view = tapped(graph.module, graph.nodes, layers).eval()
    with torch.no_grad():
        _, own = view(*materials.one.args, **materials.one.kwargs)
    _, wanted = taught.to(device)(materials.one)
    distillation = Distillation(hints, own, wanted, settings)
    networks = Networks(model, graph.module, graph.nodes, taught)
    return Job(networks, materials, distillation, settings, folder, facts, (*notes, *graph.notes))


def _check(model: nn.Module, task: Task, settings: Settings, distills: bool) -> None:
    """Refuse what cannot be trained.

    Raises:
        OptionError: nothing is left of the loss, or the task's ``monitor`` is none of its metrics.
        ModelError: weights in half precision.
    """
    if settings.task_coeff == 0 and not distills:
        raise OptionError("task_coeff is 0 and nothing is to be distilled: no loss is left")
    if task.monitor not in task.metrics():
        raise unknown_name("metric to decide which epoch is best (monitor)", task.monitor, task.metrics())
    if any(p.dtype in (torch.float16, torch.bfloat16) for p in model.parameters()):
        raise ModelError("weights in half precision do not train: give them in float32, and precision bf16 or 16")


def notes_of(student: nn.Module) -> tuple[str, ...]:
    """Return what to say of a quantized network: entries of its policy that do nothing, tensors left in float."""
    if not isinstance(student, QuantizedModel):
        return ()
    floating = [name for name, why in student.unquantized.items() if not why.startswith(IN_KERNEL)]
    listed = ", ".join(floating[:3]) + (", …" if len(floating) > 3 else "")
    told = f"{len(floating)} tensors stay in float (hessrank check says why): {listed}"
    idle = tuple(text.replace(" warning:", "") for text in student.warnings)
    return (*idle, told) if floating else idle


def as_nodes(student: nn.Module) -> dict[str, str]:
    """Return the node of every layer of a quantized network; nothing for others."""
    return dict(student.layer_nodes) if isinstance(student, QuantizedModel) else {}


def plain(batch: Batch) -> dict[str, Any]:
    """Return a batch's arguments as a checkpoint can hold them."""
    held: dict[str, Any] = tree_map(_detached, {"args": list(batch.args), "kwargs": dict(batch.kwargs)})
    return held


def _detached(leaf: Any) -> Any:
    return leaf.detach().cpu().clone() if isinstance(leaf, torch.Tensor) else leaf
