"""What a checkpoint says of its network beside the weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map

from hessrank.data.batch import Batch
from hessrank.distill.run_file import Settings
from hessrank.distill.training.inputs.task_data import TaskData
from hessrank.distill.training.networks import StartingNetworks
from hessrank.distill.training.outputs.load_trained import VERSION
from hessrank.quant.prepare import QuantizedModel


def describe_training(
    starting: StartingNetworks, data: TaskData, settings: Settings, identity: Mapping[str, Any]
) -> dict[str, Any]:
    """Return plain values that go into every checkpoint of a training.

    They are ``version``, ``arch`` (empty where a task of the user's own builds the network), ``arch_args``,
    ``policy`` (its YAML, or None), ``bits`` by tensor, ``settings``, ``identity`` (what the training is of),
    ``monitor`` (the metric that decides which epoch is best), and ``example``, one sample to trace the network with.
    """
    return {
        "version": VERSION,
        "arch": starting.reference.arch,
        "arch_args": dict(starting.reference.arch_args),
        "policy": None if starting.policy is None else str(starting.policy),
        "bits": _bits_by_tensor(starting.student),
        "settings": settings.model_dump(mode="json"),
        "identity": dict(identity),
        "monitor": data.task.monitor,
        "example": plain_arguments(data.example),
    }


def _bits_by_tensor(student: nn.Module) -> dict[str, int]:
    if not isinstance(student, QuantizedModel):
        return {}
    quantizers = dict(student.quantizers_by_path())
    return {f"{one.tensor} of {one.layer}": quantizers[one.quantizer].scheme.bits for one in student.inserted}


def plain_arguments(batch: Batch) -> dict[str, Any]:
    """Return a batch's arguments as a checkpoint holds them: copied to the CPU."""

    def detach(leaf: Any) -> Any:
        return leaf.detach().cpu().clone() if isinstance(leaf, torch.Tensor) else leaf

    held: dict[str, Any] = tree_map(detach, {"args": list(batch.args), "kwargs": dict(batch.kwargs)})
    return held
