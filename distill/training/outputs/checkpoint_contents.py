"""What a training's checkpoint must hold, of whichever release it is."""

from __future__ import annotations

from typing import Any, Final

from pydantic import Field, model_validator
from torch import Tensor
from torch.utils._pytree import tree_leaves

from hessrank.validation import Count, Name, RecordPart, Whole

FACTS: Final = "hessrank_training"
"""Key of what hessrank itself has to say in a checkpoint: policy, bits, architecture, settings."""


class CheckpointSettings(RecordPart):
    """Of how it was trained, what loading asks for."""

    freeze_bn: bool
    seed: Whole
    epochs: Whole


class CheckpointIdentity(RecordPart):
    """Of what the training is of, what loading asks for; a training in memory has none of it."""

    arch: str | None = None
    task: str = ""
    task_args: dict[str, Any] = Field(default_factory=dict)
    data: str | None = None


class CheckpointExample(RecordPart):
    """One sample: arguments by position and by name."""

    args: list[Any]
    kwargs: dict[Name, Any]

    @model_validator(mode="after")
    def _holds_tensors(self) -> CheckpointExample:
        if not any(isinstance(leaf, Tensor) for leaf in tree_leaves([self.args, self.kwargs])):
            raise ValueError("holds no tensor")
        return self


class CheckpointFacts(RecordPart):
    """What hessrank says in it; see :func:`hessrank.distill.training.outputs.checkpoint_facts.describe_training`."""

    version: Count
    arch: str
    arch_args: dict[str, Any]
    policy: Name | None
    bits: dict[str, Count]
    settings: CheckpointSettings
    identity: CheckpointIdentity
    monitor: str
    example: CheckpointExample
    epoch: Whole
    metrics: dict[str, float] = Field(default_factory=dict)


class TrainingCheckpoint(RecordPart):
    """The whole file; ``global_step`` only where a training can go on from it."""

    state_dict: dict[Name, Any]
    global_step: Whole = 0
    hessrank_training: CheckpointFacts
