"""Reads a folder of transformers' ``save_pretrained``.

The network is of the class that ``config.json`` names, if transformers has such a class. No code of the folder is
run, nothing is fetched from anywhere.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hessrank.errors import LoadError
from hessrank.files.paths import readable_file, sha256_of
from hessrank.files.size_limits import check_claim
from hessrank.models.file_format import check_header
from hessrank.models.size_check import limit_size
from hessrank.requirements import install_command
from hessrank.text import listed, one_line, printable

_CONFIG = "config.json"
_ATTENTION = "attn_implementation"
_LISTED = 4
_INDEX = "model.safetensors.index.json"
_A_PART = 100  # bytes: the least that a layer, a class or a row of an embedding takes in Python


def pretrained_folder(path: str | os.PathLike[str]) -> Path | None:
    """Return ``path`` as a folder with a ``config.json``; None for anything else."""
    try:
        folder = Path(path).expanduser()
        return folder if (folder / _CONFIG).is_file() else None
    except (OSError, RuntimeError):  # a name too long, no such user as ~name: told by who reads files
        return None


def folder_sha256(folder: Path) -> str:
    """Return one SHA-256 of the configuration and all weights, in hexadecimal."""
    digest = hashlib.sha256()
    for path in (folder / _CONFIG, *_list_weight_files(folder)):
        digest.update(os.fsencode(f"{path.name} {sha256_of(path)}\n"))
    return digest.hexdigest()


def read_pretrained(folder: Path, values: Mapping[str, Any]) -> tuple[nn.Module, str, tuple[str, ...]]:
    """Return the network of a folder in evaluation mode, its class's name, and notes.

    Args:
        folder: what ``save_pretrained`` wrote.
        values: entries of the configuration to replace, and ``attn_implementation``.

    Raises:
        LoadError: transformers is not there or does not know the class, the folder lacks weights or they do not fit.
    """
    configuration = _read_json(folder / _CONFIG)
    name, size = _read_architecture(folder, configuration), _check_weights_size(folder)
    for key, number in _find_numbers(configuration):
        check_claim(folder / _CONFIG, number * _A_PART, f"{printable(key)}: {number}", error=LoadError, size=size)
    transformers, kind = _import_class(folder, name)
    try:
        with limit_size(folder, size=size), _silence(transformers), torch.random.fork_rng(devices=[]):
            config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            _replace_values(config, values, folder)
            chosen = {_ATTENTION: values[_ATTENTION]} if _ATTENTION in values else {}
            model, found = kind.from_pretrained(
                folder,
                config=config,
                local_files_only=True,
                use_safetensors=True,
                dtype="auto",
                output_loading_info=True,
                **chosen,
            )
    except LoadError:
        raise
    except Exception as error:  # transformers raises what it meets, of any type
        raise LoadError(f"{folder}: transformers cannot load it: {one_line(error)}") from error
    if missing := sorted(found["missing_keys"]):
        raise LoadError(
            f"{folder}: the weights do not fit {name}: missing {listed(map(printable, missing), _LISTED)}"
        )
    unused = sorted(found["unexpected_keys"])
    notes = (f"{name} has no place for {listed(map(printable, unused), _LISTED)}: left out",) if unused else ()
    made: nn.Module = model.eval()
    return made, name, notes


def _read_architecture(folder: Path, held: Mapping[str, Any]) -> str:
    """Return the class that the configuration names."""
    named = held.get("architectures")
    if not (isinstance(named, list) and named and isinstance(named[0], str)):
        raise LoadError(f"{folder / _CONFIG}: it names no architectures; write it with model.save_pretrained(folder)")
    return named[0]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        held = json.loads(readable_file(path, error=LoadError).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise LoadError(f"{path}: cannot be read as JSON: {one_line(error)}") from error
    if not isinstance(held, dict):
        raise LoadError(f"{path}: it holds no JSON object; write it with model.save_pretrained(folder)")
    return held


def _list_weight_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def _check_weights_size(folder: Path) -> int:
    """Return the size of the weights, after a check of each of their files.

    Raises:
        LoadError: there are none, one is no regular file, or the index names what is none of them.
    """
    files = _list_weight_files(folder)
    if not files:
        raise LoadError(f"{folder}: there are no .safetensors in it; write it with model.save_pretrained(folder)")
    for path in files:
        check_header(readable_file(path, error=LoadError), error=LoadError)
    index = folder / _INDEX
    if index.is_file():
        mapping, known = _read_json(index).get("weight_map"), {path.name for path in files}
        named = mapping.values() if isinstance(mapping, dict) else [mapping]
        strange = [name for name in named if not (isinstance(name, str) and name in known)]
        if strange:
            raise LoadError(f"{index}: it names {printable(str(strange[0]))!r}, which is no .safetensors beside it")
    return sum(path.stat().st_size for path in files)


def _find_numbers(held: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """Yield the numbers of a configuration that may be counts, by name."""
    left = [held]
    while left:
        for key, value in left.pop().items():
            if isinstance(value, dict):
                left.append(value)
            elif isinstance(value, int) and "theta" not in key:  # that is a base of angles, and counts nothing
                yield key, value


def _import_class(folder: Path, name: str) -> tuple[Any, Any]:
    """Return the module transformers, and the network's class of this name in it."""
    try:
        transformers: Any = importlib.import_module("transformers")
    except ImportError as error:
        remedy = install_command("transformers")
        raise LoadError(f"{folder}: a folder of transformers' save_pretrained: {remedy}") from error
    kind = getattr(transformers, name, None)
    if not (isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)):
        raise LoadError(
            f"{folder}: {_CONFIG} names {printable(name)!r}, which transformers {transformers.__version__} "
            "does not have; give the .safetensors in it with --arch"
        )
    return transformers, kind


def _replace_values(config: Any, values: Mapping[str, Any], folder: Path) -> None:
    for name, value in values.items():
        if name == _ATTENTION:
            continue
        if not hasattr(config, name):
            raise LoadError(f"{folder}: --arch-args: {_CONFIG} has no entry {printable(name)!r}")
        setattr(config, name, value)


@contextmanager
def _silence(transformers: Any) -> Iterator[None]:
    """Silence transformers' progress bars and reports inside the block.

    What matters comes as an error or a note.
    """
    logging = transformers.utils.logging
    bar, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()
