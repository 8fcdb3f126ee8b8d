"""Writes and reads hessrank's checkpoints: weights and how to build a network."""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hessrank.errors import LoadError, OutputError
from hessrank.files.atomic_write import written_whole
from hessrank.models.pickles import unsafe_names
from hessrank.models.wrappers import without_wrappers
from hessrank.text import one_line

CHECKPOINT, CHECKPOINT_VERSION = "hessrank", 1
"""The key that marks a checkpoint of ours, and the number under it; a reader refuses a higher one."""


@dataclass(frozen=True)
class ModelCheckpoint:
    """What a checkpoint of ours holds.

    Attributes:
        arch: ``pkg.mod:name`` of the factory or class.
        arch_args: its keyword arguments.
        input_shape: the shape of one sample, without the batch dimension; None where it is not known.
        inputs: sample inputs, the first dimension counting them; None where there are none.
        state: the state dict.
    """

    arch: str
    arch_args: dict[str, Any]
    input_shape: tuple[int, ...] | None
    inputs: Tensor | None
    state: dict[str, Any]


def save_checkpoint(
    path: str | os.PathLike[str],
    model: nn.Module,
    *,
    arch: str,
    arch_args: Mapping[str, Any],
    input_shape: Sequence[int] | None,
    inputs: Tensor | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Write the weights of ``model``, and how to build it.

    `load_model` reads the file without ``--arch``.

    The file appears whole or not at all, is readable with ``torch.load(weights_only=True)``, and has the same
    bytes for the same content. ``arch`` is imported on loading only if it is a module class inside
    ``hessrank.``; any other has to be repeated by whoever loads the file.

    Args:
        path: the file to write; its folder has to exist.
        model: the network; it is not changed.
        arch: ``pkg.mod:name`` of the factory or class that builds it.
        arch_args: its keyword arguments, plain values.
        input_shape: the shape of one sample, without the batch dimension.
        inputs: a few sample inputs N×…, of any type.
        metadata: plain values and tensors that the user wants to keep with the weights.

    Raises:
        OutputError: the file cannot be written, or a value is not plain.
    """
    with without_wrappers(model) as network:
        state = {
            name: value.detach().cpu() if isinstance(value, Tensor) else value
            for name, value in network.state_dict().items()
        }
    content = {
        CHECKPOINT: CHECKPOINT_VERSION,
        "arch": arch,
        "arch_args": dict(arch_args),
        "input_shape": None if input_shape is None else [int(size) for size in input_shape],
        "inputs": None if inputs is None else inputs.detach().cpu().clone(),  # a view would bring its whole storage
        "metadata": dict(metadata or {}),
        "model": state,
    }
    write_checkpoint(Path(path).expanduser(), content)


def write_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Write a dict of tensors and plain values, and check that it is safe to read.

    Raises:
        OutputError: the file cannot be written, or a value is not plain.
    """
    with written_whole(path) as beside:
        try:
            with beside.open("wb") as file:  # to a file object: no file name gets into the bytes
                torch.save(_make_canonical(dict(content), {}), file)
        except (AttributeError, TypeError, RuntimeError, pickle.PicklingError) as error:
            raise OutputError(f"{path}: cannot be written: {_explain_failure(error)}") from error
        if unsafe := unsafe_names(beside):
            raise OutputError(
                f"{path}: a checkpoint holds tensors and plain values only, not {', '.join(unsafe)}; "
                "convert what is in arch_args or metadata"
            )


def _make_canonical(value: Any, texts: dict[str, str]) -> Any:
    """Return the same content in new containers, equal strings as one object.

    A pickle says of an object that comes again where it was: which strings are one object, and not only equal,
    depends on where they came from, and would show in the bytes.

    Args:
        value: containers, tensors and plain values.
        texts: the strings that were met, by themselves.
    """
    if isinstance(value, str):
        return texts.setdefault(value, value)
    if type(value) in (dict, OrderedDict):
        made = type(value)()
        made |= {_make_canonical(key, texts): _make_canonical(item, texts) for key, item in value.items()}
        if hasattr(value, "_metadata"):  # versions of a state dict's modules
            made._metadata = _make_canonical(value._metadata, texts)
        return made
    if type(value) in (list, tuple):
        return type(value)(_make_canonical(item, texts) for item in value)
    return value


def _explain_failure(error: BaseException) -> str:
    """Return why writing failed.

    torch hides a full disk behind a remark on its own file format.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__context__
    return one_line(error)


def is_checkpoint(held: object) -> bool:
    """Return whether what a file holds claims to be a checkpoint of ours."""
    return isinstance(held, Mapping) and isinstance(held.get(CHECKPOINT), int)


def parse_checkpoint(held: Mapping[str, Any], *, source: str) -> ModelCheckpoint:
    """Return a checkpoint's parts, each of the type it should have.

    Args:
        held: what ``torch.load`` returned.
        source: the file, for the error message.

    Raises:
        LoadError: it was written by a newer hessrank, or a part is missing or of another type.
    """
    if held[CHECKPOINT] > CHECKPOINT_VERSION:
        raise LoadError(
            f"{source}: written by a newer hessrank (format {held[CHECKPOINT]}, "
            f"this one reads {CHECKPOINT_VERSION}); upgrade hessrank"
        )
    shape = held.get("input_shape")
    parts = {
        "arch": isinstance(held.get("arch"), str),
        "arch_args": isinstance(held.get("arch_args"), dict),
        "input_shape": shape is None
        or (isinstance(shape, list | tuple) and all(isinstance(size, int) and size > 0 for size in shape)),
        "inputs": held.get("inputs") is None or isinstance(held.get("inputs"), Tensor),
        "model": isinstance(held.get("model"), Mapping),
    }
    for name, good in parts.items():
        if not good:
            raise LoadError(f"{source}: a hessrank checkpoint whose entry {name!r} is missing or of the wrong type")
    return ModelCheckpoint(
        held["arch"],
        held["arch_args"],
        None if shape is None else tuple(shape),
        held.get("inputs"),
        dict(held["model"]),
    )
