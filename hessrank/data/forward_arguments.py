"""Decides which field of a batch is which argument of ``forward``, or the target.

A batch's fields are the arguments of ``forward``, by position (a tensor, a tuple) or by name (a dict). One
field more than ``forward`` takes, or the last one when the loss needs it, is the target; so is the second of two
fields of which the first is a tuple or a dict of all arguments. Labels by name are a target, also where ``forward``
could take them to compute a loss of its own. One field that is called as inputs are (``images``) is the tensor that
``forward`` asks for, whatever it calls that. Where it could keep a cache to generate text with, it is told not to.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from hessrank.errors import DataError

_MISSPELLED = 0.75  # likeness of two names from which one is taken for the other
TARGET_NAMES = ("target", "targets", "label", "labels", "y")
INPUT_NAMES = ("input", "inputs", "x", "image", "images", "img", "imgs", "feature", "features")
_COLUMN_NAMES = (*INPUT_NAMES, "data", "sample", "samples")
"""What people call an array of inputs; an argument called ``data`` may well be a dict."""
_CACHE = "use_cache"  # what transformers call it
Bound = tuple[tuple[Any, ...], dict[str, Any], Any]
"""Arguments by position, arguments by name, and the target; None without one."""


@dataclass(frozen=True)
class ForwardArguments:
    """What a model's ``forward`` takes.

    Attributes:
        names: of all arguments, but for ``*args`` and ``**kwargs``.
        required: how many have no default.
        optional: names of those whose default is None.
        any_position: whether ``forward`` has ``*args``.
        any_name: whether ``forward`` has ``**kwargs``.
        tensor: name of the only required argument, if that is a tensor by its name or annotation; else "".
        words: constants in the code of ``forward``; the names by which it reads a dict are among them.
    """

    names: tuple[str, ...]
    required: int
    optional: tuple[str, ...]
    any_position: bool
    any_name: bool
    tensor: str
    words: frozenset[object]

    @classmethod
    def of(cls, model: nn.Module) -> ForwardArguments:
        """Read the signature of ``model.forward``."""
        parameters = list(inspect.signature(model.forward).parameters.values())
        kinds = {p.kind for p in parameters}
        named = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        required = [p for p in named if p.default is p.empty]
        return cls(
            tuple(p.name for p in named),
            len(required),
            tuple(p.name for p in named if p.default is None),
            inspect.Parameter.VAR_POSITIONAL in kinds,
            inspect.Parameter.VAR_KEYWORD in kinds,
            required[0].name if len(required) == 1 and _is_tensor(required[0]) else "",
            frozenset(getattr(getattr(model.forward, "__code__", None), "co_consts", ())),
        )


def _is_tensor(parameter: inspect.Parameter) -> bool:
    """Return whether an argument is a tensor, by its annotation or its name."""
    if parameter.annotation is parameter.empty:
        return parameter.name.lower() in INPUT_NAMES
    text = inspect.formatannotation(parameter.annotation)
    return "Tensor" in text and "dict" not in text.lower() and "Mapping" not in text


def bind_arguments(fields: Any, model: nn.Module, *, needs_target: bool) -> Bound:
    """Sort the fields of a batch into arguments of ``model.forward`` and a target.

    Args:
        fields: a tensor, a tuple or list, or a dict of them.
        model: whose ``forward`` decides what is an argument and what the target.
        needs_target: whether the last field is the target where ``forward`` could do with or without it.

    Raises:
        DataError: the fields do not fit ``forward``.
    """
    takes = ForwardArguments.of(model)
    args, kwargs, target = _bind(fields, takes, needs_target)
    if _CACHE in takes.names[len(args) :] and _CACHE not in kwargs and _CACHE in takes.optional:
        kwargs = {**kwargs, _CACHE: False}
    return args, kwargs, target


def _bind(fields: Any, takes: ForwardArguments, needs_target: bool) -> Bound:
    if isinstance(fields, Mapping):
        return _bind_by_name(dict(fields), takes, needs_target)
    if not isinstance(fields, tuple | list):
        return (fields,), {}, None
    if len(fields) == 2 and _is_all_arguments(fields[0], takes):
        args, kwargs, _ = _bind(fields[0], takes, needs_target=False)
        return args, kwargs, fields[1]
    return _bind_by_position(tuple(fields), takes, needs_target)


def _is_all_arguments(first: Any, takes: ForwardArguments) -> bool:
    """Return whether the first of two fields holds all arguments of ``forward``.

    A nest of one argument only does not count.
    """
    if isinstance(first, Mapping):
        return bool(first) and all(name in takes.names for name in first)
    return isinstance(first, tuple | list) and takes.required > 1 and len(first) >= takes.required


def _bind_by_position(fields: tuple[Any, ...], takes: ForwardArguments, needs_target: bool) -> Bound:
    most = len(fields) if takes.any_position else len(takes.names)
    has_target = (needs_target and len(fields) > max(1, takes.required)) or len(fields) == most + 1
    args, target = (fields[:-1], fields[-1]) if has_target else (fields, None)
    if len(args) > most or len(args) < takes.required:
        raise DataError(
            f"the data has {len(fields)} fields, but forward({', '.join(takes.names)}) takes "
            f"{takes.required} to {most}, and one more for the target"
        )
    return args, {}, target


def _bind_by_name(fields: dict[str, Any], takes: ForwardArguments, needs_target: bool) -> Bound:
    targets = [name for known in TARGET_NAMES for name in fields if str(name).lower() == known]
    fields = _rename_input(fields, takes, targets)
    if not takes.any_name and not any(name in takes.names for name in fields):
        target = fields.pop(targets[0]) if targets else None
        return (fields,), {}, target  # forward takes the dict as a whole
    free = [name for name in targets if name not in takes.names]
    own = [name for name in targets if name in takes.optional and name.lower() != "y"]  # for a loss of its own
    held_back = [] if free else (targets if needs_target else own)[:1]
    taken = [name for name in fields if name in takes.names and name not in held_back]
    if takes.any_name:
        taken += [name for name in fields if name not in takes.names and name not in targets]
    extra = [name for name in fields if name not in taken]
    _refuse_unknown([name for name in extra if name not in targets], targets, fields, takes)
    return (), {name: fields[name] for name in taken}, fields[extra[0]] if extra else None


def _refuse_unknown(
    unknown: Sequence[str], targets: Sequence[str], fields: Mapping[str, Any], takes: ForwardArguments
) -> None:
    """Refuse names that ``forward`` does not take.

    A single one may be the target, unless it is a misspelling.
    """
    arguments = f"forward({', '.join(takes.names)})"
    if len(unknown) > 1 or (unknown and targets):
        raise DataError(
            f"the data has {', '.join(map(repr, unknown))}, which {arguments} does not "
            f"take: call its arguments so, and labels {TARGET_NAMES[1]!r}"
        )
    left = [name for name in takes.names if name not in fields]
    for name in unknown:
        if near := difflib.get_close_matches(name, left, n=1, cutoff=_MISSPELLED):
            raise DataError(
                f"the data has {name!r}, which {arguments} does not take: {near[0]!r} is "
                "meant? call it so, or 'target' if it is one"
            )


def _rename_input(fields: dict[str, Any], takes: ForwardArguments, targets: Sequence[str]) -> dict[str, Any]:
    """Name the only array of inputs as ``forward`` names its only tensor.

    Where another reading is possible, the name stays.
    """
    others = [name for name in fields if name not in targets]
    if len(others) != 1 or others[0] in {*takes.names, *takes.words} or str(others[0]).lower() not in _COLUMN_NAMES:
        return fields
    if not takes.tensor or takes.tensor in fields or takes.any_name:
        return fields
    return {takes.tensor if name == others[0] else name: value for name, value in fields.items()}
