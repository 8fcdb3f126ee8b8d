"""A network out of a checkpoint that a training wrote."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from hessrank.analysis.batches import Batch
from hessrank.analysis.loading.architecture import Architecture, build, import_ours
from hessrank.analysis.loading.checkpoint import CHECKPOINT, CHECKPOINT_VERSION
from hessrank.analysis.loading.files import readable_file
from hessrank.analysis.loading.matching import load_weights
from hessrank.analysis.loading.pickles import read_pickle
from hessrank.errors import LoadError
from hessrank.quant.policy import Policy
from hessrank.quant.policy.reading import read_text
from hessrank.quant.prepare import QuantizedModel, prepare

FACTS = "hessrank_training"
"""Key of what hessrank itself has to say in a checkpoint: policy, bits, architecture, settings."""
VERSION = 1
"""Of what lies under that key; a reader refuses a higher one."""


def peek(path: str | Path) -> Any:
    """Return what ``torch.save`` put into a file; None if it is no such file, or needs trust."""
    try:
        return read_pickle(readable_file(path, error=LoadError), trust_pickle=False)
    except LoadError:
        return None


def is_trained(path: str | Path) -> bool:
    """Return whether a file is a checkpoint of a quantized network that a training wrote."""
    return holds_trained(peek(path))


def holds_trained(held: object) -> bool:
    """Return whether what a file holds is such a checkpoint."""
    facts = held.get(FACTS) if isinstance(held, Mapping) else None
    return isinstance(facts, Mapping) and facts.get("policy") is not None


def load_trained(
    path: str | Path, *, arch: Architecture | None = None, arch_args: Mapping[str, Any] | None = None
) -> QuantizedModel:
    """Return the quantized network of a training's checkpoint, with its policy and its trained state.

    Args:
        path: ``best-epoch….ckpt`` or ``last-epoch….ckpt``.
        arch: what builds the float network; needed unless it is one of hessrank's own.
        arch_args: its arguments, if not those in the checkpoint.

    Returns:
        the network in evaluation mode, on the CPU.

    Raises:
        LoadError: no such file, no checkpoint of a quantized training, or a state that does not fit.
    """
    held, facts = read_trained(path)
    if facts["policy"] is None:
        raise LoadError(f"{path}: a network trained in float: load it with hessrank.load_model")
    if arch is None and not facts["arch"]:
        raise LoadError(f"{path}: the checkpoint does not say what builds its network: give arch (--arch)")
    arguments = facts["arch_args"] if arch_args is None else dict(arch_args)
    network = build(import_ours(facts["arch"], source=str(path)) if arch is None else arch, arguments)
    prepared = prepare(
        network, Policy.part_of(read_text(facts["policy"], str(path))), _one_sample(example_of(facts)), num_samples=1,
        freeze_bn=bool(facts["settings"]["freeze_bn"]),
    )  # fmt: skip
    load_weights(prepared, held["state_dict"], source=str(path))
    prepared.set_quantizing(True)
    return prepared.eval()


def read_trained(path: str | Path) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return what a training's checkpoint holds, and what it says of its network.

    Raises:
        LoadError: no such file, or none that a training wrote.
    """
    held = read_pickle(readable_file(path, error=LoadError), trust_pickle=False)
    if not isinstance(held, Mapping) or not isinstance(held.get(FACTS), Mapping):
        raise LoadError(f"{path}: no checkpoint of a hessrank training: give a best-epoch….ckpt or last-epoch….ckpt")
    facts: Mapping[str, Any] = held[FACTS]
    if facts["version"] > VERSION:
        raise LoadError(f"{path}: written by a newer hessrank; upgrade hessrank")
    return held, facts


def example_of(facts: Mapping[str, Any]) -> Batch:
    """Return the sample that a checkpoint carries, to trace the network with."""
    example = facts["example"]
    return Batch(tuple(example["args"]), dict(example["kwargs"]))


def _one_sample(example: Batch) -> Any:
    return dict(example.kwargs) if example.kwargs else tuple(example.args)


def as_float_checkpoint(facts: Mapping[str, Any], state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries that make a training's checkpoint one that ``hessrank.load_model`` reads by itself."""
    example = example_of(facts)
    inputs = example.args[0] if len(example.args) == 1 and isinstance(example.args[0], Tensor) else None
    shape = None if inputs is None else list(inputs.shape[1:])
    parts = {"arch": facts["arch"], "arch_args": dict(facts["arch_args"]), "input_shape": shape, "inputs": inputs}
    return {CHECKPOINT: CHECKPOINT_VERSION, **parts, "metadata": {}, "model": dict(state)}
