"""Makes a loss from its name, or from a function."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor

from hessrank.analysis.losses.base import Loss, no_curvature
from hessrank.analysis.losses.custom_loss import CustomLoss
from hessrank.analysis.registries import LOSSES
from hessrank.errors import LossError, OptionError, unknown_name
from hessrank.user_code import user_code


def make_loss(loss: str | Loss | Callable[..., Tensor]) -> Loss:
    """Return the loss called ``loss``, or wrap a function ``fn(output, target)``.

    Args:
        loss: a registered name, maybe with options (``cross-entropy,ignore_index=255``), ``pkg.module:fn``,
            ``file.py:fn``, a function, or a :class:`Loss`.

    Raises:
        LossError: it is L1, which has no second derivative.
        UnknownNameError: there is no loss of that name, or it has no option of that name.
        OptionError: an option is no whole number.
    """
    if isinstance(loss, str):
        if loss.lower() in ("l1", "mae", "l1loss", "l1-loss"):
            raise no_curvature(loss)
        return _make_registered(loss) if is_registered(loss) else _wrap(LOSSES.resolve_or_import(loss), loss)
    return _wrap(loss, getattr(loss, "__name__", type(loss).__name__))


def is_registered(loss: str) -> bool:
    """Return whether ``loss`` is the name of a loss of ours, with or without options."""
    return loss.partition(",")[0] in LOSSES


def _make_registered(loss: str) -> Loss:
    """Make a loss of ours with its options, whole numbers all of them."""
    name, *pairs = loss.split(",")
    factory = LOSSES.resolve(name)
    known = inspect.signature(factory).parameters
    options = {}
    for pair in pairs:
        option, _, value = pair.partition("=")
        if option not in known:
            raise unknown_name(f"option of loss {name!r}", option, known)
        try:
            options[option] = int(value)
        except ValueError as error:
            raise OptionError(f"loss {loss!r}: write a whole number, as {name},{option}=255") from error
    made: Loss = factory(**options)
    return made


def _wrap(loss: Any, name: str) -> Loss:
    if isinstance(loss, type):
        with user_code(f"loss {name!r}: making it", LossError):
            loss = loss()
    if hasattr(loss, "per_sample") and hasattr(loss, "factor"):
        ready: Loss = loss
        return ready
    if not callable(loss):
        raise LossError(f"loss {name!r} is not callable: it should be a function of (output, target)")
    return CustomLoss(loss, name)
