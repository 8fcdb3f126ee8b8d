"""What a checkpoint says of its network beside the weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from hessrank.distill.run_file import Settings
from hessrank.distill.training.outputs.load_trained import VERSION
from hessrank.distill.training.plan import Materials, plain
from hessrank.quant.policy import Policy
from hessrank.quant.prepare import QuantizedModel


def facts_of(
    student: nn.Module,
    policy: Policy | None,
    settings: Settings,
    materials: Materials,
    *,
    arch: str,
    arch_args: Mapping[str, Any],
    identity: Mapping[str, Any],
) -> dict[str, Any]:
    """Return plain values that go into every checkpoint of a training.

    They are ``version``, ``arch`` (empty where a task of the user's own builds the network), ``arch_args``,
    ``policy`` (its YAML, or None), ``bits`` by tensor, ``settings``, ``identity`` (what the training is of),
    ``monitor`` (the metric that decides which epoch is best), and ``example``, one sample to trace the network with.
    """
    bits = {}
    if isinstance(student, QuantizedModel):
        quantizers = dict(student.quantizers_by_path())
        bits = {f"{one.tensor} of {one.layer}": quantizers[one.quantizer].scheme.bits for one in student.inserted}
    return {
        "version": VERSION,
        "arch": arch,
        "arch_args": dict(arch_args),
        "policy": None if policy is None else str(policy),
        "bits": bits,
        "settings": settings.model_dump(mode="json"),
        "identity": dict(identity),
        "monitor": materials.task.monitor,
        "example": plain(materials.one),
    }
