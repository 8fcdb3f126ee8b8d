"""A training put together and not yet begun: networks, data, losses, and what is to be said of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map

from hessrank.analysis.batches import Batch, as_samples, make_batch
from hessrank.distill.distillation import Distillation, hints_of
from hessrank.distill.run_file import Settings
from hessrank.distill.taps import tapped
from hessrank.distill.tasks.base import Task
from hessrank.distill.teacher import Teacher, as_graph
from hessrank.distill.training.loaders import is_dataset
from hessrank.distill.training.module import Networks
from hessrank.distill.training.patience import within
from hessrank.errors import DataError
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
    """

    networks: Networks
    materials: Materials
    distillation: Distillation | None
    settings: Settings
    folder: Path
    facts: Mapping[str, Any]
    notes: tuple[str, ...] = field(default=())

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
        UnknownNameError: a layer that student or teacher has not.
        LossError: activations that do not compare.
    """
    hints = hints_of(policy, settings)
    if not hints:
        networks = Networks(model, student, as_nodes(student, materials.one))
        return Job(networks, materials, None, settings, folder, facts, notes)
    graph = as_graph(student, materials.one)
    layers = [hint.layer for hint in hints]
    taught = Teacher(model if teacher is None else teacher, materials.one, layers)
    device = next(student.parameters()).device
    view = tapped(graph.module, graph.nodes, layers).eval()
    with torch.no_grad():
        _, own = view(*materials.one.args, **materials.one.kwargs)
    _, wanted = taught.to(device)(materials.one)
    distillation = Distillation(hints, own, wanted, settings)
    return Job(
        Networks(model, graph.module, graph.nodes, taught), materials, distillation, settings, folder, facts, notes
    )


def as_nodes(student: nn.Module, one: Batch) -> dict[str, str]:
    """Return the node of every layer of a quantized network; nothing for others."""
    return dict(student.layer_nodes) if isinstance(student, QuantizedModel) else {}


def plain(batch: Batch) -> dict[str, Any]:
    """Return a batch's arguments as a checkpoint can hold them."""
    held: dict[str, Any] = tree_map(_detached, {"args": list(batch.args), "kwargs": dict(batch.kwargs)})
    return held


def _detached(leaf: Any) -> Any:
    return leaf.detach().cpu().clone() if isinstance(leaf, torch.Tensor) else leaf
