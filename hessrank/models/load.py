"""Loads a network from a file of any format."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from hessrank.errors import LoadError
from hessrank.files.paths import readable_file, sha256_of
from hessrank.models.architecture import Architecture, arch_name, build, import_ours
from hessrank.models.exported import exported_note, read_exported
from hessrank.models.file_format import Format, check_header, detect_format
from hessrank.models.match_weights import fits, ignored_notes, load_weights, without_ignored
from hessrank.models.model_checkpoint import is_checkpoint, parse_checkpoint
from hessrank.models.pickles import read_pickle
from hessrank.models.pretrained import folder_sha256, pretrained_folder, read_pretrained
from hessrank.models.size_check import build_without_memory, limit_size
from hessrank.models.weight_entries import (
    Entry,
    describe_held,
    find_entries,
    needs_arch,
    taken_note,
)
from hessrank.models.weight_sets import choose_weights, fitting_groups
from hessrank.models.wrappers import take_out, wrappers_of
from hessrank.text import one_line, printable


@dataclass(frozen=True)
class LoadedModel:
    """A network that was read from a file.

    Attributes:
        model: the network, on the CPU, in evaluation mode, its weights of the type they have in the file.
        format: "hessrank checkpoint", "state dict", "safetensors", "torch.export program", "pickled module",
            "transformers".
        path: the file as it was named.
        sha256: of the file's bytes, or of all files of a folder, in hexadecimal.
        arch: what built the network; None where the file holds the network itself.
        arch_args: the keyword arguments ``arch`` was called with.
        input_shape: the shape of one sample, without the batch dimension, where the file says it.
        inputs: sample inputs (batch first), where the file holds some.
        weights_key: the keys that lead to the weights in the file, joined by dots; None where nothing is around them.
        ignored_keys: names in the file that were left out, as was asked for.
        notes: what was done on the way that a user may want to know, a sentence each.
    """

    model: nn.Module
    format: str
    path: str
    sha256: str
    arch: str | None = None
    arch_args: dict[str, Any] = field(default_factory=dict)
    input_shape: tuple[int, ...] | None = None
    inputs: Tensor | None = None
    weights_key: str | None = None
    ignored_keys: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Request:
    """What the user asked for."""

    path: Path
    arch: Architecture | None
    arch_args: Mapping[str, Any] | None
    trust_pickle: bool
    weights_key: str | None
    ignore_keys: tuple[str, ...]

    def refuse_choice(self, what: str) -> None:
        """Refuse a choice among weights where there is none."""
        if self.weights_key is not None or self.ignore_keys:
            raise LoadError(
                f"{self.path}: {what} leaves no choice of weights: leave out --weights-key, --ignore-keys"
            )


def load_model(
    path: str | os.PathLike[str],
    *,
    arch: Architecture | None = None,
    arch_args: Mapping[str, Any] | None = None,
    trust_pickle: bool = False,
    weights_key: str | None = None,
    ignore_keys: Sequence[str] = (),
) -> LoadedModel:
    """Read a network from a file, or from a folder of transformers.

    The file is our checkpoint, a state dict, safetensors, a ``.pt2`` or a pickled module.

    No code of the file is run unless ``trust_pickle`` is set. With ``arch``, the weights go into the network
    that ``arch`` makes, also those of a pickled module.

    Args:
        path: the file, or a folder that transformers' ``save_pretrained`` wrote.
        arch: ``pkg.mod:factory`` or ``file.py:factory``, or a factory, class or module; needed wherever
            the file holds weights only.
        arch_args: keyword arguments of the factory; for a checkpoint of ours, its own unless given here. For a
            folder, entries of its configuration to replace, or ``attn_implementation``.
        trust_pickle: whether the file may run code when it is read.
        weights_key: which weights of a file that holds several: ``ema`` of an entry, ``teacher`` of names that begin
            with ``teacher.``; None takes the first entry that fits, and says which others there are.
        ignore_keys: patterns, as a shell has them (``pooler.*``), of keys in the file that ``arch`` may lack; what
            is left out stands in the notes. A key that is missing from the file is always an error.

    Raises:
        LoadError: the file is missing, unreadable, damaged, no model, not trusted, or does not fit ``arch``.
        HessrankError: ``arch`` or ``arch_args`` cannot be used.

    Example:
        A file of weights needs what builds the network:

        >>> import torch
        >>> import hessrank
        >>> torch.save(torch.nn.Linear(3, 2).state_dict(), "weights.pth")
        >>> sizes = {"in_features": 3, "out_features": 2}
        >>> loaded = hessrank.load_model("weights.pth", arch=torch.nn.Linear, arch_args=sizes)
        >>> loaded.model, loaded.format
        (Linear(in_features=3, out_features=2, bias=True), 'state dict')
    """
    patterns = (ignore_keys,) if isinstance(ignore_keys, str) else tuple(ignore_keys)
    folder = pretrained_folder(path)
    if folder is not None:
        return _from_pretrained(_Request(folder, arch, arch_args, trust_pickle, weights_key, patterns))
    file = readable_file(path, error=LoadError)
    kind = detect_format(file)
    request = _Request(file, arch, arch_args, trust_pickle, weights_key, patterns)
    reader = {
        Format.TORCH: _from_torch,
        Format.SAFETENSORS: _from_safetensors,
        Format.EXPORTED: _from_exported,
    }
    return reader[kind](request)


def _from_pretrained(request: _Request) -> LoadedModel:
    if request.arch is not None:
        raise LoadError(
            f"{request.path}: a folder of save_pretrained names its own architecture; leave --arch out, "
            "or give the .safetensors in it"
        )
    request.refuse_choice("a folder of save_pretrained")
    values = dict(request.arch_args or {})
    model, name, notes = read_pretrained(request.path, values)
    digest = folder_sha256(request.path)
    return LoadedModel(model, "transformers", str(request.path), digest, f"transformers:{name}", values, notes=notes)


def _from_exported(request: _Request) -> LoadedModel:
    if request.arch is not None:
        raise LoadError(f"{request.path}: a torch.export program holds its own network; leave --arch out")
    request.refuse_choice("a torch.export program")
    model, inputs = read_exported(request.path, trust_pickle=request.trust_pickle)
    return _make_loaded(
        request,
        model,
        "torch.export program",
        inputs=inputs,
        input_shape=None if inputs is None else tuple(inputs.shape[1:]),
        notes=(exported_note(inputs),),
    )


def _from_safetensors(request: _Request) -> LoadedModel:
    from safetensors.torch import load_file  # noqa: PLC0415  # not needed for the other formats

    check_header(request.path, error=LoadError)
    try:
        state = load_file(request.path)
    except Exception as error:  # SafetensorError derives from Exception alone
        raise LoadError(f"{request.path}: the file is cut short or damaged: {one_line(error)}") from error
    if not state:
        raise LoadError(f"{request.path}: there are no tensors in it")
    return _from_entries(request, [Entry("", state)], "safetensors")


def _from_torch(request: _Request) -> LoadedModel:
    held = read_pickle(request.path, trust_pickle=request.trust_pickle)
    if is_checkpoint(held):
        return _from_checkpoint(request, held)
    entries = find_entries(held)
    if not entries:
        raise LoadError(f"{request.path}: no network and no state dict in it, but {describe_held(held)}")
    if request.arch is None:
        for entry in _choose_entries(request, entries):
            if isinstance(entry.content, nn.Module):
                return _from_module(request, entry, entries)
    return _from_entries(request, entries, "state dict")


def _choose_entries(request: _Request, entries: list[Entry], model: nn.Module | None = None) -> list[Entry]:
    """Return the entry that ``weights_key`` names; all without a key."""
    if request.weights_key is None:
        return entries
    return [choose_weights(entries, request.weights_key, model, source=str(request.path))]


def _from_module(request: _Request, entry: Entry, entries: list[Entry]) -> LoadedModel:
    assert isinstance(entry.content, nn.Module)
    unwrapped = tuple(f"took the network out of {name}" for name in wrappers_of(entry.content))
    return _make_loaded(
        request,
        take_out(entry.content).cpu().eval(),
        "pickled module",
        weights_key=entry.name or None,
        notes=(*taken_note(entry, entries), *unwrapped, *ignored_notes((), request.ignore_keys)),
    )


def _from_checkpoint(request: _Request, held: Mapping[str, Any]) -> LoadedModel:
    source = str(request.path)
    checkpoint = parse_checkpoint(held, source=source)
    arch_args = checkpoint.arch_args if request.arch_args is None else request.arch_args
    with limit_size(request.path):
        if request.arch is None:
            ours = import_ours(checkpoint.arch, source=source)
            build_without_memory(ours, arch_args)
            model = build(ours, arch_args, source=f"{source}: its architecture {checkpoint.arch}")
        else:
            model = build(request.arch, arch_args)
    (entry,) = _choose_entries(request, [Entry("model", checkpoint.state)], model)
    ignored, notes = _put_weights(request, model, entry, source)
    return _make_loaded(
        request,
        model,
        "hessrank checkpoint",
        arch=checkpoint.arch if request.arch is None else arch_name(request.arch),
        arch_args=dict(arch_args),
        input_shape=checkpoint.input_shape,
        inputs=checkpoint.inputs,
        ignored_keys=ignored,
        notes=notes,
    )


def _put_weights(
    request: _Request, model: nn.Module, entry: Entry, source: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Put an entry's weights into a network; return the ignored keys and notes."""
    state, ignored = without_ignored(model, entry.state_dict(), request.ignore_keys)
    notes = load_weights(model, state, source=source, may_ignore=True)
    return ignored, (*notes, *ignored_notes(ignored, request.ignore_keys))


def _from_entries(request: _Request, entries: list[Entry], format_name: str) -> LoadedModel:
    """Put the asked or the first fitting entry into the network of ``--arch``.

    Where none fits, it is the first one, for the message.
    """
    if request.arch is None:
        raise LoadError(f"{request.path}: {needs_arch(_choose_entries(request, entries)[0])}")
    arch_args = {} if request.arch_args is None else request.arch_args
    with limit_size(request.path):
        model = build(request.arch, arch_args)
    asked = _choose_entries(request, entries, model)
    entry = next((e for e in asked if fits(model, e.state_dict(), request.ignore_keys)), asked[0])
    source = f"{request.path} ({printable(entry.name)})" if entry.name else str(request.path)
    try:
        ignored, notes = _put_weights(request, model, entry, source)
    except LoadError as error:
        others = [name for name in fitting_groups(entries, model, request.ignore_keys) if name != entry.name]
        if not others:
            raise
        listed = ", ".join(repr(printable(name)) for name in others)
        raise LoadError(
            f"{error}; weights that fit are under {listed}: --weights-key {printable(others[0])}"
        ) from error
    return _make_loaded(
        request,
        model,
        format_name,
        arch=arch_name(request.arch),
        arch_args=dict(arch_args),
        weights_key=entry.name or None,
        ignored_keys=ignored,
        notes=taken_note(entry, entries) + notes,
    )


def _make_loaded(request: _Request, model: nn.Module, format_name: str, **parts: Any) -> LoadedModel:
    return LoadedModel(model, format_name, str(request.path), sha256_of(request.path), **parts)
