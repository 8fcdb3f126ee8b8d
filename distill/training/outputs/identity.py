"""What a training is of, in a few plain values: a run goes on, or counts as finished, only if they are the same."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from hessrank.distill.run_file import RunFile, Settings
from hessrank.files.paths import sha256_of
from hessrank.network.sample_batches import tensor_bytes

_DIGITS = 16
_NOTHING = ("config_file_path", "debug", "gpu_id", "onnx", "out", "pdb_debug", "plugins", "test", "trust_pickle")
"""Keys that do not change what a run computes; what ``config_file_path`` says, and which code, is in the policy."""
_FILES = ("load_model", "load_quant_model", "load_teacher_model", "teacher_policy")


def identity_of_run(run: RunFile) -> dict[str, Any]:
    """Return a run file's keys, with checksums of the files that they name.

    Keys of how to train are left out.
    """
    found: dict[str, Any] = run.keys.model_dump(mode="json", exclude={*Settings.model_fields, *_NOTHING})
    for name in _FILES:
        path = run.beside(getattr(run.keys, name))
        if path is not None and path.is_file():
            found[f"{name}, content"] = _checksum(path, path.stat().st_mtime_ns)
    return found


def identity_in_memory(
    model: nn.Module, teacher: nn.Module | None, samples: Mapping[str, Any], loss: str
) -> dict[str, Any]:
    """Return checksums of model, teacher and samples, and the loss's name.

    Args:
        model: the float network.
        teacher: None for the network itself.
        samples: a nest of tensors by name.
        loss: what to call the loss.
    """
    found: dict[str, Any] = {"model": _digest(model.state_dict().values()), "loss": loss}
    found["teacher"] = None if teacher is None else _digest(teacher.state_dict().values())
    return found | {name: _digest(tree_leaves(nest)) for name, nest in samples.items()}


def changed(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Return the names of the values that differ."""
    return [name for name in {**theirs, **ours} if ours.get(name) != theirs.get(name)]


@lru_cache(maxsize=256)
def _checksum(path: Path, modified: int) -> str:
    return sha256_of(path)[:_DIGITS]


def _digest(tensors: Any) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        if isinstance(tensor, Tensor):
            digest.update(tensor_bytes(tensor))
    return digest.hexdigest()[:_DIGITS]
