"""Weights put into a network, every one of them, or an error that lists what does not fit."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from hessrank.analysis.loading.files import one_line, printable, shape_text
from hessrank.analysis.loading.prefixes import strip_prefixes
from hessrank.errors import LoadError

_LISTED = 8


def load_weights(model: nn.Module, state: Mapping[str, Any], *, source: str) -> tuple[str, ...]:
    """Put ``state`` into ``model``; every name and every shape has to fit.

    Weights keep the type they have in the file (half, bfloat16). Tensors that ``model`` shares need to be
    there under one of their names only.

    Args:
        model: the network; on an error its weights may be partly those of ``state``.
        state: tensors by name, with the prefixes of wrappers or without.
        source: the file, for the error message.

    Returns:
        Notes on what was done to make the names match.

    Raises:
        LoadError: keys that are missing, unexpected or of another shape or kind, or two tensors of the file
            for one of the network.
    """
    own = model.state_dict()
    names, notes = strip_prefixes(state, own.keys())
    shared = _complete_shared(names, own)
    failure = f"{source}: the weights do not fit the architecture"
    try:
        if reasons := _passed_over(names, own):
            raise LoadError(f"{failure}: {'; '.join(reasons)}")
        _adopt_types(model, names)
        model.load_state_dict(names)
    except (RuntimeError, AttributeError, TypeError, KeyError) as error:
        reasons = _differences(names, own) or [one_line(error, at_most=400)]
        raise LoadError(f"{failure}: {'; '.join(reasons)}") from error
    return (*notes, *shared, *_type_note(names))


def fits(model: nn.Module, state: Mapping[str, Any]) -> bool:
    """Whether the names of ``state`` are those of ``model``, less the prefixes of wrappers."""
    own = model.state_dict()
    return strip_prefixes(state, own.keys())[0].keys() == own.keys()


def _complete_shared(names: dict[str, Any], own: Mapping[str, Any]) -> list[str]:
    """Add to ``names`` the further names of tensors that the network shares (tied weights)."""
    present = {place: name for name, value in own.items() if name in names and (place := _place(value))}
    twins = {
        name: present[place]
        for name, value in own.items()
        if name not in names and (place := _place(value)) in present
    }
    names.update({name: names[twin] for name, twin in twins.items()})
    return [f"{name} is tied to {twin}" for name, twin in twins.items()]


def _place(value: object) -> tuple[int, torch.Size, tuple[int, ...]] | None:
    """Where a tensor's memory is and how it is read; None for what has none."""
    if not isinstance(value, Tensor) or is_lazy(value) or not value.numel():
        return None
    return value.data_ptr(), value.shape, value.stride()


def _adopt_types(model: nn.Module, names: Mapping[str, Any]) -> None:
    """Give the network's floating tensors the types that theirs have in the file, so that none is rounded."""
    for name, tensor in model.state_dict(keep_vars=True).items():
        value = names.get(name)
        if _is_floating(value) and _is_floating(tensor) and not is_lazy(tensor):
            tensor.data = tensor.data.to(value.dtype)


def _type_note(names: Mapping[str, Any]) -> list[str]:
    types = {value.dtype for value in names.values() if _is_floating(value)} - {torch.float32}
    return [f"weights are {', '.join(sorted(map(_type_text, types)))}"] if types else []


def _type_text(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _is_floating(value: object) -> TypeGuard[Tensor]:
    return isinstance(value, Tensor) and value.is_floating_point()


def _passed_over(names: Mapping[str, Any], own: Mapping[str, Any]) -> list[str]:
    """Return up to two phrases on what ``load_state_dict`` would convert or overwrite without a word."""
    kinds, twice = [], []
    first: dict[object, str] = {}
    for name in (name for name in own if isinstance(names.get(name), Tensor)):
        value, twin = names[name], first.setdefault(_place(own[name]) or name, name)
        if _is_floating(own[name]) and not value.is_floating_point():
            kinds.append(f"{name} is {_type_text(value.dtype)}")
        if value is not names[twin] and not torch.equal(value, names[twin]):
            twice.append(f"{twin} and {name}")
    found = (
        _listed("not of a floating type, as the network's are", kinds),
        _listed("one tensor in the network, two in the file", twice),
    )
    return [phrase for phrase in found if phrase]


def _differences(names: Mapping[str, Any], own: Mapping[str, Any]) -> list[str]:
    """Return up to three phrases: keys that are missing, unexpected, of another shape."""
    missing = [name for name in own if name not in names]
    unexpected = [name for name in names if name not in own]
    shapes = [
        f"{name} is {_form(names[name])} in the file, {_form(own[name])} in the network"
        for name in own
        if name in names and _differ(names[name], own[name])
    ]
    with_nearest = [name + _nearest(name, missing or own) for name in unexpected]
    found = (
        _listed("missing from the file", missing),
        _listed("not in the network", with_nearest),
        _listed("of another shape", shapes, remedy=" (does --arch-args give the right sizes?)"),
    )
    return [phrase for phrase in found if phrase]


def _differ(value: object, own: object) -> bool:
    if not isinstance(own, Tensor) or is_lazy(own):
        return False
    return not isinstance(value, Tensor) or value.shape != own.shape


def _form(value: object) -> str:
    return shape_text(value.shape) if isinstance(value, Tensor) else f"of type {type(value).__name__}"


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.75)
    return f" (nearest is {near[0]!r})" if near else ""


def _listed(what: str, names: list[str], *, remedy: str = "") -> str:
    if not names:
        return ""
    more = f", … ({len(names)} in all)" if len(names) > _LISTED else ""
    return f"{what}: {', '.join(map(printable, names[:_LISTED]))}{more}{remedy}"
