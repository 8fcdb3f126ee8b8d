"""The networks of a training: as they are given, and as they take part in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from hessrank.distill.run_file import Settings
from hessrank.distill.teacher.teacher import Teacher
from hessrank.distill.training.inputs.task_data import TaskData
from hessrank.models.wrappers import copy_network
from hessrank.quant.layer_graph.quantizer_placement import IN_KERNEL
from hessrank.quant.policy import Policy
from hessrank.quant.prepare import QuantizedModel, prepare
from hessrank.text import DOTS, listed


@dataclass(frozen=True)
class FloatNetwork:
    """A float network and where it comes from.

    Attributes:
        model: the network.
        arch: what builds it, as a checkpoint names it; empty if a task that is not hessrank's does.
        arch_args: its arguments.
        notes: what was done on the way.
    """

    model: nn.Module
    arch: str = ""
    arch_args: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class StartingNetworks:
    """What a training starts from.

    Attributes:
        reference: the float network; its ``forward`` binds the data's fields.
        student: what is trained: a quantized network, or a copy of the float one.
        policy: what the student is quantized by; None in float.
        teacher: whose activations are the target of the hint layers; None takes the float network.
        judges_float: whether the weights of the float network are known; without, it is not judged.
    """

    reference: FloatNetwork
    student: nn.Module
    policy: Policy | None
    teacher: nn.Module | None
    judges_float: bool = True


@dataclass(frozen=True)
class Networks:
    """What takes part in a training.

    Attributes:
        signature: the module whose ``forward`` binds a batch's fields: the user's float network.
        student: what is trained: a quantized network, or a float one.
        nodes: for every layer name, the student's torch.fx node; empty if it is no graph.
        teacher: None without distillation.
        judges_float: whether ``signature`` is judged beside the student.
    """

    signature: nn.Module
    student: nn.Module
    nodes: Mapping[str, str]
    teacher: Teacher | None = None
    judges_float: bool = True

    @property
    def student_name(self) -> str:
        """What to call the student in tables and pictures."""
        return "quantized" if isinstance(self.student, QuantizedModel) else "float"


def make_student(model: nn.Module, policy: Policy | None, data: TaskData, settings: Settings) -> nn.Module:
    """Return what to train: a copy of ``model``, quantized if there is a policy.

    Raises:
        HessrankError: the policy does not fit the network.
    """
    return copy_network(model) if policy is None else quantize_network(model, policy, data, settings)


def quantize_network(model: nn.Module, policy: Policy, data: TaskData, settings: Settings) -> QuantizedModel:
    """Return ``model`` quantized by a policy, with ranges from training samples."""
    return prepare(
        model,
        policy,
        data.training,
        num_samples=settings.calibration_samples,
        batch_size=min(settings.batch_size, settings.calibration_samples),
        freeze_bn=settings.freeze_bn,
    )


def describe_student(student: nn.Module) -> tuple[str, ...]:
    """Return what to say of a quantized network: idle entries, tensors in float."""
    if not isinstance(student, QuantizedModel):
        return ()
    floating = [name for name, why in student.unquantized.items() if not why.startswith(IN_KERNEL)]
    note = f"{len(floating)} tensors stay in float (hessrank check says why): {listed(floating, 3, DOTS)}"
    idle = tuple(text.replace(" warning:", "") for text in student.warnings)
    return (*idle, note) if floating else idle
