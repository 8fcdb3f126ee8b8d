"""A training planned and not yet begun: networks, data, losses, and what is to be said of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hessrank.distill.run_file import Settings
from hessrank.distill.tasks.base import Task
from hessrank.distill.teacher.activations import tapped
from hessrank.distill.teacher.loss_terms import Distillation, Hint
from hessrank.distill.teacher.teacher import Teacher, trace_network
from hessrank.distill.training.inputs.task_data import TaskData
from hessrank.distill.training.networks import Networks, StartingNetworks
from hessrank.distill.training.outputs.checkpoint_facts import describe_training
from hessrank.errors import ModelError, OptionError, unknown_name
from hessrank.quant.prepare import QuantizedModel


@dataclass(frozen=True)
class TrainingPlan:
    """A training.

    Attributes:
        networks: student and teacher.
        data: what they learn from and are judged with.
        distillation: the terms of the hint layers; None without any.
        settings: how to train.
        folder: where to write.
        facts: what every checkpoint says of the network: architecture, policy, bits.
        notes: what the user should know before the first step.
    """

    networks: Networks
    data: TaskData
    distillation: Distillation | None
    settings: Settings
    folder: Path
    facts: Mapping[str, Any]
    notes: tuple[str, ...] = field(default=())


def plan_training(
    starting: StartingNetworks,
    data: TaskData,
    hints: Sequence[Hint],
    settings: Settings,
    folder: Path,
    *,
    identity: Mapping[str, Any],
    notes: tuple[str, ...] = (),
) -> TrainingPlan:
    """Plan a training; nothing is written.

    Args:
        starting: student, teacher and float network.
        data: what to train on and judge with.
        hints: the layers to distill.
        settings: how to train.
        folder: where to write.
        identity: what the training is of, for the checkpoints.
        notes: what is known so far.

    Raises:
        UnknownNameError: a layer that student or teacher has not; a ``monitor`` that is no metric.
        LossError: activations that do not compare.
        OptionError: no loss is left.
        ModelError: weights in half precision.
    """
    _require_trainable(starting.reference.model, data.task, settings, bool(hints))
    facts = describe_training(starting, data, settings, identity)
    student = starting.student
    nodes = dict(student.layer_nodes) if isinstance(student, QuantizedModel) else {}
    networks = Networks(starting.reference.model, student, nodes, judges_float=starting.judges_float)
    if not hints:
        return TrainingPlan(networks, data, None, settings, folder, facts, notes)
    networks, traced = _add_teacher(networks, starting.teacher, data, hints)
    distillation = _make_distillation(networks, data, hints, settings)
    return TrainingPlan(networks, data, distillation, settings, folder, facts, (*notes, *traced))


def _require_trainable(model: nn.Module, task: Task, settings: Settings, distills: bool) -> None:
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


def _add_teacher(
    networks: Networks, teacher: nn.Module | None, data: TaskData, hints: Sequence[Hint]
) -> tuple[Networks, tuple[str, ...]]:
    """Return the networks with a student that is a graph and a frozen teacher; and what tracing has to say."""
    graph = trace_network(networks.student, data.example)
    try:
        frozen = Teacher(networks.signature if teacher is None else teacher, data.example, [h.layer for h in hints])
    except ModelError as error:
        raise ModelError(f"the teacher: {error}") from error
    return replace(networks, student=graph.module, nodes=graph.nodes, teacher=frozen), graph.notes


def _make_distillation(networks: Networks, data: TaskData, hints: Sequence[Hint], settings: Settings) -> Distillation:
    """Return the terms of the hint layers, whose projections take their sizes from one sample's activations."""
    student, teacher, example = networks.student, networks.teacher, data.example
    assert isinstance(student, torch.fx.GraphModule)
    assert teacher is not None
    view = tapped(student, networks.nodes, [hint.layer for hint in hints]).eval()
    with torch.no_grad():
        _, own = view(*example.args, **example.kwargs)
    _, wanted = teacher.to(next(networks.student.parameters()).device)(example)
    return Distillation(hints, own, wanted, settings)
