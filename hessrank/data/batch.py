"""Samples, batches of them, and how a batch meets ``model.forward``.

A batch's fields are the arguments of ``forward``, by position (a tensor, a tuple) or by name (a dict). One
field more than ``forward`` takes, or the last one when the loss needs it, is the target; so is the second of two
fields of which the first is a tuple or a dict of all arguments. Labels by name are a target, also where ``forward``
could take them to compute a loss of its own. One field that is called as inputs are (``images``) is the tensor that
``forward`` asks for, whatever it calls that. Where it could keep a cache to generate text with, it is told not to.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten
from torch.utils.data import IterableDataset, default_collate

from hessrank.bounds import whole
from hessrank.data.data_source import Data
from hessrank.errors import DataError
from hessrank.user_code import told

_MISSPELLED = 0.75  # likeness of two names from which one is taken for the other
TARGET_NAMES = ("target", "targets", "label", "labels", "y")
INPUT_NAMES = ("input", "inputs", "x", "image", "images", "img", "imgs", "feature", "features")
_COLUMN_NAMES = (*INPUT_NAMES, "data", "sample", "samples")
"""What people call an array of inputs; an argument called ``data`` may well be a dict."""
_CACHE = "use_cache"  # what transformers call it


class Samples(Protocol):
    """Samples by index; one is a tensor, a tuple or a dict of tensors, without a batch dimension."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


@dataclass(frozen=True)
class Batch:
    """A few samples, stacked along dimension 0, as ``model(*args, **kwargs)`` takes them.

    Attributes:
        args: positional arguments of ``forward``.
        kwargs: arguments of ``forward`` by name.
        target: what the loss compares with; None when there is none.
        samples: index of each sample in the data set; its length is the batch size.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    target: Any = None
    samples: tuple[int, ...] = (0,)

    def __len__(self) -> int:
        return len(self.samples)

    def map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        """Return the batch with ``function`` applied to every tensor, the target's included."""
        args, kwargs, target = tree_map(
            lambda leaf: function(leaf) if isinstance(leaf, Tensor) else leaf,
            (self.args, self.kwargs, self.target),
        )
        return Batch(args, kwargs, target, self.samples)


class _Columns:
    """Tensors whose first dimension counts the samples, in any nest of tuples and dicts."""

    def __init__(self, columns: Any) -> None:
        leaves, self._spec = tree_flatten(columns)
        try:
            self._leaves = [torch.as_tensor(leaf) for leaf in leaves]
        except (RuntimeError, TypeError, ValueError) as error:
            raise DataError(f"the data holds something that is no tensor: {first_line(error)}") from error
        lengths = sorted({leaf.shape[0] if leaf.ndim else 0 for leaf in self._leaves})
        if not self._leaves or lengths[0] == 0:
            raise DataError("no data: give tensors whose first dimension counts the samples, one sample at least")
        if len(lengths) > 1:
            raise DataError(f"the tensors hold different numbers of samples: {', '.join(map(str, lengths))}")
        self._length = lengths[0]

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int, /) -> Any:
        return tree_unflatten([leaf[index] for leaf in self._leaves], self._spec)


class _First:
    """The first samples of a longer sequence."""

    def __init__(self, samples: Samples, length: int) -> None:
        self._samples, self._length = samples, length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int, /) -> Any:
        return self._samples[index]


def as_samples(data: Any, num_samples: int | None = None) -> Samples:
    """Return whatever holds data as samples by index.

    Args:
        data: a tensor or array (N×…), a tuple or dict of them, a dataset (a list of samples is one), or any
            iterable of batches such as a data loader, of which the first ``num_samples`` are kept.
        num_samples: how many to take from the front; None takes all.

    Raises:
        DataError: there is no sample, or the tensors disagree on how many there are.
    """
    with told("the data", DataError):
        return _as_samples(data, num_samples)


def _as_samples(data: Any, num_samples: int | None) -> Samples:
    samples: Any
    data = data.dataset if isinstance(data, Data) else data
    if num_samples is not None:
        whole("num_samples", num_samples, least=1, error=DataError)
    if isinstance(data, Tensor | np.ndarray | tuple | Mapping):
        samples = _Columns(data)
    elif hasattr(data, "__getitem__") and isinstance(data, Sized) and not isinstance(data, IterableDataset):
        samples = data
    elif hasattr(data, "__iter__"):
        one_by_one = data if isinstance(data, IterableDataset) else _unbatched(data)
        with torch.random.fork_rng(devices=[]):  # a data loader draws a seed
            samples = list(islice(one_by_one, num_samples))
    else:
        raise DataError(f"no data in a {type(data).__name__}: give tensors, a dataset or a data loader")
    available = len(samples)
    if available == 0:
        raise DataError("no data: the data set is empty")
    return samples if num_samples is None else _First(samples, min(num_samples, available))


def _unbatched(batches: Any) -> Iterator[Any]:
    for batch in batches:
        columns = _Columns(tuple(batch) if isinstance(batch, list) else batch)
        yield from (columns[index] for index in range(len(columns)))


def make_batch(samples: Samples, indices: Sequence[int], model: nn.Module, *, needs_target: bool) -> Batch:
    """Stack the samples at ``indices`` and bind them to the arguments of ``model.forward``.

    Args:
        samples: where they come from.
        indices: which ones; the batch size is their number.
        model: whose ``forward`` decides what is an argument and what the target.
        needs_target: whether the loss has to have a target.

    Raises:
        DataError: samples of different shapes, or fields that do not fit ``forward``.
    """
    with told(f"reading samples {list(indices)}", DataError):
        rows = [samples[index] for index in indices]
    try:
        fields = default_collate(rows)
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise DataError(f"samples {list(indices)} do not stack into a batch: {first_line(error)}") from error
    batch = bind_fields(fields, model, needs_target=needs_target)
    if needs_target and batch.target is None:
        raise DataError("this loss needs a target: let the data hold (inputs, target), or rank with --loss self")
    return replace(batch, samples=tuple(indices))


def bind_fields(fields: Any, model: nn.Module, *, needs_target: bool) -> Batch:
    """Bind the fields of a batch, as a data loader gives them, to the arguments of ``model.forward``.

    Args:
        fields: a tensor, a tuple or list, or a dict of them, samples along dimension 0.
        model: whose ``forward`` decides what is an argument and what the target.
        needs_target: whether the last field is the target where ``forward`` could do with or without it.

    Returns:
        the batch; its target is None where there is none, its samples are numbered from 0.

    Raises:
        DataError: fields that do not fit ``forward``.
    """
    takes = _Parameters.of(model)
    args, kwargs, target = _bind(fields, takes, needs_target)
    if _CACHE in takes.names[len(args) :] and _CACHE not in kwargs and _CACHE in takes.optional:
        kwargs = {**kwargs, _CACHE: False}
    sizes = [leaf.shape[0] for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor) and leaf.ndim]
    return Batch(args, kwargs, target, tuple(range(sizes[0] if sizes else 1)))


@dataclass(frozen=True)
class _Parameters:
    names: tuple[str, ...]
    required: int
    optional: tuple[str, ...]  # those that are None where nobody says otherwise
    any_position: bool
    any_name: bool
    tensor: str  # the argument that it cannot do without, if that is one and a tensor by its name or annotation
    words: frozenset[object]  # in its code, the names among them by which it reads a dict

    @classmethod
    def of(cls, model: nn.Module) -> _Parameters:
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
    """Return whether an argument of ``forward`` is a tensor, by its annotation, or else by its name."""
    if parameter.annotation is parameter.empty:
        return parameter.name.lower() in INPUT_NAMES
    text = inspect.formatannotation(parameter.annotation)
    return "Tensor" in text and "dict" not in text.lower() and "Mapping" not in text


def _bind(fields: Any, takes: _Parameters, needs_target: bool) -> tuple[tuple[Any, ...], dict[str, Any], Any]:
    if isinstance(fields, Mapping):
        return _bind_by_name(dict(fields), takes, needs_target)
    if isinstance(fields, tuple | list) and len(fields) == 2 and _is_all_arguments(fields[0], takes):
        args, kwargs, _ = _bind(fields[0], takes, needs_target=False)
        return args, kwargs, fields[1]
    if isinstance(fields, tuple | list):
        return (*_bind_by_position(tuple(fields), takes, needs_target),)
    return (fields,), {}, None


def _is_all_arguments(first: Any, takes: _Parameters) -> bool:
    """Return whether the first of two fields is a nest of all of ``forward``'s arguments, and no single one."""
    if isinstance(first, Mapping):
        return bool(first) and all(name in takes.names for name in first)
    return isinstance(first, tuple | list) and takes.required > 1 and len(first) >= takes.required


def _bind_by_position(
    fields: tuple[Any, ...], takes: _Parameters, needs_target: bool
) -> tuple[tuple[Any, ...], dict[str, Any], Any]:
    most = len(fields) if takes.any_position else len(takes.names)
    has_target = (needs_target and len(fields) > max(1, takes.required)) or len(fields) == most + 1
    args, target = (fields[:-1], fields[-1]) if has_target else (fields, None)
    if len(args) > most or len(args) < takes.required:
        raise DataError(
            f"the data has {len(fields)} fields, but forward({', '.join(takes.names)}) takes "
            f"{takes.required} to {most}, and one more for the target"
        )
    return args, {}, target


def _bind_by_name(
    fields: dict[str, Any], takes: _Parameters, needs_target: bool
) -> tuple[tuple[Any, ...], dict[str, Any], Any]:
    targets = [name for known in TARGET_NAMES for name in fields if str(name).lower() == known]
    fields = _named_as_argument(fields, takes, targets)
    if takes.any_name or any(name in takes.names for name in fields):
        free = [name for name in targets if name not in takes.names]
        own = [name for name in targets if name in takes.optional and name.lower() != "y"]  # for a loss of its own
        held_back = targets[:1] if needs_target and not free else own[:1] if not free else []
        taken = [n for n in fields if n in takes.names and n not in held_back]
        if takes.any_name:
            taken += [n for n in fields if n not in takes.names and n not in targets]
        extra = [name for name in fields if name not in taken]
        unknown = [name for name in extra if name not in targets]
        if len(unknown) > 1 or (unknown and targets):
            raise DataError(
                f"the data has {', '.join(map(repr, unknown))}, which forward({', '.join(takes.names)}) does not "
                f"take: call its arguments so, and labels {TARGET_NAMES[1]!r}"
            )
        for name in unknown:
            left = [n for n in takes.names if n not in fields]
            if near := difflib.get_close_matches(name, left, n=1, cutoff=_MISSPELLED):
                raise DataError(
                    f"the data has {name!r}, which forward({', '.join(takes.names)}) does not take: {near[0]!r} is "
                    "meant? call it so, or 'target' if it is one"
                )
        return (), {name: fields[name] for name in taken}, fields[extra[0]] if extra else None
    target = fields.pop(targets[0]) if targets else None
    return (fields,), {}, target  # forward takes the dict as a whole


def _named_as_argument(fields: dict[str, Any], takes: _Parameters, targets: Sequence[str]) -> dict[str, Any]:
    """Call the one array of inputs as ``forward`` calls its one tensor; leave what allows of another reading."""
    others = [name for name in fields if name not in targets]
    if len(others) != 1 or others[0] in {*takes.names, *takes.words} or str(others[0]).lower() not in _COLUMN_NAMES:
        return fields
    if not takes.tensor or takes.tensor in fields or takes.any_name:
        return fields
    return {takes.tensor if name == others[0] else name: value for name, value in fields.items()}


def naming_remedy(batch: Batch, model: nn.Module) -> str:
    """Return what to call the arrays of a batch that ``forward`` was given as one dict; empty for any other batch."""
    if len(batch.args) != 1 or not isinstance(batch.args[0], Mapping):
        return ""
    wanted, given = ", ".join(_Parameters.of(model).names), ", ".join(map(repr, batch.args[0]))
    return (
        f"; forward({wanted}) was given one dict of {given}: call its arguments so to have them apart, and labels "
        f"{TARGET_NAMES[1]!r}"
    )


def single_samples(batch: Batch) -> list[Batch]:
    """Return the samples of ``batch`` as batches of one."""

    def only(index: int) -> Batch:
        one = batch.map(lambda tensor: tensor[index : index + 1] if tensor.ndim else tensor)
        return replace(one, samples=(batch.samples[index],))

    return [only(index) for index in range(len(batch))]


def describe(batch: Batch) -> str:
    """Return the inputs' shapes and types in a few words (``float32 1×3×64×64``), for messages."""
    leaves = [leaf for leaf in tree_leaves((batch.args, batch.kwargs)) if isinstance(leaf, Tensor)]
    return ", ".join(f"{str(t.dtype).removeprefix('torch.')} {'×'.join(map(str, t.shape))}" for t in leaves)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type where there is none."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
