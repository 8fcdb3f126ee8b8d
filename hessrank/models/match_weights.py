"""Puts all weights into a network, or lists what does not fit."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from hessrank.errors import LoadError
from hessrank.models.name_prefixes import strip_prefixes
from hessrank.models.tensors import why_unusable
from hessrank.text import IN_ALL, dtype_text, listed, one_line, printable, shape_text

_LISTED = 8
_PATTERNS = 4


def load_weights(
    model: nn.Module, state: Mapping[str, Any], *, source: str, may_ignore: bool = False
) -> tuple[str, ...]:
    """Put ``state`` into ``model``; every name and every shape has to fit.

    Weights keep the type they have in the file (half, bfloat16). Tensors that ``model`` shares need to be
    there under one of their names only.

    Args:
        model: the network; on an error its weights may be partly those of ``state``.
        state: tensors by name, with the prefixes of wrappers or without.
        source: the file, for the error message.
        may_ignore: whether ``--ignore-keys`` is there to leave keys out that the network lacks.

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
        if reasons := _find_conversions(names, own):
            raise LoadError(f"{failure}: {'; '.join(reasons)}")
        _adopt_types(model, names)
        model.load_state_dict(names)
    except (RuntimeError, AttributeError, TypeError, KeyError) as error:
        reasons = _describe_differences(names, own, may_ignore=may_ignore) or [one_line(error, at_most=400)]
        raise LoadError(f"{failure}: {'; '.join(reasons)}") from error
    types = {dtype_text(value.dtype) for value in names.values() if _is_floating(value)} - {"float32"}
    return (*notes, *shared, *([f"weights are {', '.join(sorted(types))}"] if types else []))


def fits(model: nn.Module, state: Mapping[str, Any], ignored: Sequence[str] = ()) -> bool:
    """Return whether the names of ``state`` are those of ``model``.

    Prefixes of wrappers and what is ignored do not count.
    """
    own = model.state_dict()
    return strip_prefixes(without_ignored(model, state, ignored)[0], own.keys())[0].keys() == own.keys()


def without_ignored(
    model: nn.Module, state: Mapping[str, Any], patterns: Sequence[str]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return ``state`` without ignored keys, and the names of those keys.

    Ignored is what ``model`` lacks and a pattern matches.

    Args:
        model: the network; a key that it has is never left out.
        state: tensors by name, with the prefixes of wrappers or without.
        patterns: as a shell has them (``pooler.*``), for names with their prefixes or without.
    """
    own = model.state_dict()
    in_file, _ = strip_prefixes({name: name for name in state}, own.keys())
    left_out = {
        given
        for name, given in in_file.items()
        if name not in own and any(fnmatchcase(text, pattern) for pattern in patterns for text in (name, given))
    }
    kept = {name: value for name, value in state.items() if name not in left_out}
    return kept, tuple(name for name in state if name in left_out)


def ignored_notes(ignored: Sequence[str], patterns: Sequence[str]) -> tuple[str, ...]:
    """Return notes on the keys that were ignored, and on patterns without a key."""
    if ignored:
        return (
            _describe_names(f"--ignore-keys: left out {len(ignored)} of the file, which the network lacks", ignored),
        )
    return (
        (f"--ignore-keys {shlex.join(patterns)}: the file has no such key that the network lacks",)
        if patterns
        else ()
    )


def _complete_shared(names: dict[str, Any], own: Mapping[str, Any]) -> list[str]:
    """Add the other names of tensors that the network shares (tied weights)."""
    present = {place: name for name, value in own.items() if name in names and (place := _locate_memory(value))}
    twins = {
        name: present[place]
        for name, value in own.items()
        if name not in names and (place := _locate_memory(value)) in present
    }
    names.update({name: names[twin] for name, twin in twins.items()})
    return [f"{name} is tied to {twin}" for name, twin in twins.items()]


def _locate_memory(value: object) -> tuple[int, torch.Size, tuple[int, ...]] | None:
    """Return a tensor's address, shape and strides; None for what has none."""
    if not isinstance(value, Tensor) or is_lazy(value) or not value.numel():
        return None
    return value.data_ptr(), value.shape, value.stride()


def _adopt_types(model: nn.Module, names: Mapping[str, Any]) -> None:
    """Give the network's floating tensors the types of the file's.

    So none is rounded.
    """
    for name, tensor in model.state_dict(keep_vars=True).items():
        value = names.get(name)
        if _is_floating(value) and _is_floating(tensor) and not is_lazy(tensor):
            tensor.data = tensor.data.to(value.dtype)


def _is_floating(value: object) -> TypeGuard[Tensor]:
    return isinstance(value, Tensor) and value.is_floating_point()


def _find_conversions(names: Mapping[str, Any], own: Mapping[str, Any]) -> list[str]:
    """Return phrases on what ``load_state_dict`` would convert or overwrite.

    It would do so without a word.
    """
    kinds, twice, unfit = [], [], []
    first: dict[object, str] = {}
    for name in (name for name in own if isinstance(names.get(name), Tensor)):
        value, twin = names[name], first.setdefault(_locate_memory(own[name]) or name, name)
        if reason := why_unusable(value):
            unfit.append(f"{printable(name)} {reason}")
            continue
        if _is_floating(own[name]) and not value.is_floating_point():
            kinds.append(f"{name} is {dtype_text(value.dtype)}")
        if value is not names[twin] and not torch.equal(value, names[twin]):
            twice.append(f"{twin} and {name}")
    found = (
        *unfit[:1],
        _describe_names("not of a floating type, as the network's are", kinds),
        _describe_names("one tensor in the network, two in the file", twice),
    )
    return [phrase for phrase in found if phrase]


def _describe_differences(names: Mapping[str, Any], own: Mapping[str, Any], *, may_ignore: bool) -> list[str]:
    """Return up to three phrases: keys that are missing, unexpected, of another shape."""
    missing = [name for name in own if name not in names]
    unexpected = [name for name in names if name not in own]
    shapes = [
        f"{name} is {_describe_form(names[name])} in the file, {_describe_form(own[name])} in the network"
        for name in own
        if name in names and isinstance(own[name], Tensor) and not is_lazy(own[name])
        if _describe_form(names[name]) != _describe_form(own[name])
    ]
    known = missing or list(own)
    with_nearest = [
        name + "".join(f" (nearest is {near!r})" for near in difflib.get_close_matches(name, known, n=1, cutoff=0.75))
        for name in unexpected
    ]
    ignoring = f" ({_suggest_ignoring(unexpected, own)})" if may_ignore and unexpected and not missing else ""
    found = (
        _describe_names("missing from the file", missing),
        _describe_names("not in the network", with_nearest, remedy=ignoring),
        _describe_names("of another shape", shapes, remedy=" (does --arch-args give the right sizes?)"),
    )
    return [phrase for phrase in found if phrase]


def _describe_form(value: object) -> str:
    return shape_text(value.shape) if isinstance(value, Tensor) else f"of type {type(value).__name__}"


def _suggest_ignoring(unexpected: Sequence[str], own: Iterable[str]) -> str:
    """Return the options that leave keys of the file out.

    A key is named by the first part of its name that the network does not have.
    """
    parts = {name[:end] for name in own for end in range(len(name) + 1) if name[end : end + 1] in ("", ".")}

    def pattern(name: str) -> str:
        words = name.split(".")
        shorter = (".".join(words[:count]) for count in range(1, len(words)))
        return next((f"{part}.*" for part in shorter if part not in parts), name)

    patterns = list(dict.fromkeys(pattern(printable(name)) for name in unexpected))
    more = ", and so on," if len(patterns) > _PATTERNS else ""
    options = " ".join(f"--ignore-keys {shlex.quote(key)}" for key in patterns[:_PATTERNS])
    return f"{options}{more} leaves them out" if len(patterns) == 1 or more else f"{options} leave them out"


def _describe_names(what: str, names: Sequence[str], *, remedy: str = "") -> str:
    """Return what is wrong with some names; nothing where there are none."""
    return f"{what}: {listed(map(printable, names), _LISTED, IN_ALL)}{remedy}" if names else ""
