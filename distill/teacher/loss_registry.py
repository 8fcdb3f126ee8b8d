"""Distillation losses by name, and a user's own."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor

from hessrank.distill.teacher.losses import DISTILLATION_LOSSES, DistillationLoss
from hessrank.errors import LossError, OptionError
from hessrank.text import shape_text
from hessrank.user_code import explain_errors, user_code

__all__ = ["DISTILLATION_LOSSES", "CustomDistillation", "DistillationLoss", "make_distillation_loss"]


def make_distillation_loss(name: str, temperature: float = 4.0) -> DistillationLoss:
    """Return the distillation loss called ``name``.

    Args:
        name: a registered name; or ``pkg.module:fn`` or ``file.py:fn``, a function ``fn(student, teacher)``
            that returns one number (channel counts agree when it is called), or a :class:`DistillationLoss`.
        temperature: by which ``logits-kl`` divides logits; no other loss has one.

    Raises:
        UnknownNameError: there is no loss of that name; the message says the nearest.
        OptionError: the temperature is not a positive number.
        LossError: what the name points at cannot be called.
    """
    if not (temperature > 0 and math.isfinite(temperature)):
        raise OptionError(f"distillation temperature {temperature}: give a positive number")
    found: Any = DISTILLATION_LOSSES.resolve_or_import(name)
    if name in DISTILLATION_LOSSES:
        made: DistillationLoss = found(temperature)
        return made
    if isinstance(found, type):
        with user_code(f"distillation loss {name!r}: making it", LossError):
            found = found()
    if not callable(found):
        raise LossError(f"distillation loss {name!r} is not callable: it should be a function of (student, teacher)")
    ready: DistillationLoss = found if hasattr(found, "needs_same_channels") else CustomDistillation(found, name)
    return ready


class CustomDistillation:
    """A user's ``fn(student, teacher)``."""

    needs_same_channels = True

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor], name: str) -> None:
        """Wrap ``function``, called ``name`` in messages."""
        self.name = name
        self._function = function

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the function's value, a scalar.

        Raises:
            LossError: it raises, or does not return one number.
        """
        with explain_errors(f"distillation loss {self.name!r}"):
            value: Any = self._function(student, teacher.detach())
        if not isinstance(value, Tensor) or value.numel() != 1:
            what = shape_text(value.shape) if isinstance(value, Tensor) else f"a {type(value).__name__}"
            raise LossError(f"distillation loss {self.name!r} returned {what}: it should return one number")
        return value.reshape(())
