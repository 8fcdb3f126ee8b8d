"""The map from a student's channels to its teacher's, where the two differ in width."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from hessrank.errors import LossError
from hessrank.text import shape_text

Projection = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
"""A linear map of channels, the same at every position, without bias."""


def make_projection(student_shape: Sequence[int], teacher_shape: Sequence[int]) -> Projection | None:
    """Return the 1×1 map from the student's shape to the teacher's; None if equal.

    The regressor of Romero et al., "FitNets", ICLR 2015, section 2.2, with the smallest kernel. It starts as a
    partial identity: channel i of the student is compared with channel i of the teacher, and missing ones are
    0. Making it takes nothing from the global random generator.

    Args:
        student_shape: B×C, B×C×L, B×C×H×W or B×C×D×H×W.
        teacher_shape: likewise; equal in all but C.

    Raises:
        LossError: no map of channels makes these shapes equal.
    """
    student, teacher = tuple(student_shape), tuple(teacher_shape)
    _check_all_but_channels(student, teacher)
    if student == teacher:
        return None
    positions = len(student) - 2
    with torch.random.fork_rng(devices=()):
        if positions == 0:
            linear = nn.Linear(student[1], teacher[1], bias=False)
            nn.init.eye_(linear.weight)
            return linear
        convolution = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[positions - 1](student[1], teacher[1], 1, bias=False)
        nn.init.dirac_(convolution.weight)
        return convolution


def _check_all_but_channels(student: tuple[int, ...], teacher: tuple[int, ...]) -> None:
    others = (student[:1] + student[2:], teacher[:1] + teacher[2:])
    if not 2 <= len(student) <= 5 or len(student) != len(teacher) or others[0] != others[1]:
        raise LossError(
            f"the student's activation is {shape_text(student)}, the teacher's {shape_text(teacher)}: "
            "a projection makes channels (dimension 1) equal and nothing else; distill layers of the same size"
        )
