"""What a task is: a network, data, a loss and metrics under one name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torchmetrics import Metric

from hessrank.plugins import Registry

Picture = NDArray[np.floating]
"""H×W (gray) or H×W×3 (RGB), in [0, 1]."""


@runtime_checkable
class Task(Protocol):
    """One thing that can be trained. Subclass it; a run file names the class as ``task: pkg.mod:Class``.

    A run file's ``task_args`` are further keyword arguments of the class.

    Attributes:
        monitor: the metric that decides which epoch is the best.
        mode: whether the best is its largest (``max``) or smallest (``min``) value.
        validation_batch_size: samples that validation runs together; 1 where they differ in size.
        notes: what was done to the data that a user may want to know, a sentence each.
        picture_candidates: validation samples to choose from which to draw pictures of; 0 for no choice.
    """

    monitor: str
    mode: Literal["max", "min"] = "max"
    validation_batch_size: int = 1
    notes: tuple[str, ...] = ()
    picture_candidates: int = 0

    def __init__(self, data: str | None, *, folder: Path, seed: int) -> None:
        """Find the data.

        Args:
            data: what the run file's key ``data`` says: a path, or a name that the task knows; None for the
                task's own default.
            folder: where relative paths start: that of the run file.
            seed: of all randomness in the data.

        Raises:
            DataError: the data is not there; the message shows the folder layout that is wanted.
        """
        ...

    def model(self, **arch_args: Any) -> nn.Module:
        """Return a new float network. A class will do: ``model = LowLight``."""
        ...

    def initialize(self, model: nn.Module) -> None:
        """Draw the weights of a network that nothing is loaded into; torch's own defaults if not overridden."""
        return

    def training_data(self) -> Any:
        """Return a map-style data set of ``(inputs…, target)`` without a batch dimension, or a data loader.

        The items of a data set that is :class:`EndlessSamples` are new in every epoch. Of a data set, order and
        batches are the trainer's; a data loader is taken as it is.
        """
        ...

    def validation_data(self) -> Any:
        """Return the same of what training never sees."""
        ...

    def loss(self, output: Any, target: Any) -> Tensor:
        """Return the mean loss of a batch, a scalar.

        Args:
            output: whatever the network returned.
            target: the data's last field, stacked along dimension 0.
        """
        ...

    def metrics(self) -> Mapping[str, Metric]:
        """Return new torchmetrics, by name, each with ``update(output, target)``; ``monitor`` is among them."""
        ...

    def panels(self, inputs: tuple[Any, ...], target: Any, outputs: Mapping[str, Any]) -> Mapping[str, Picture]:
        """Return pictures of one sample by title, from left to right; none if it has none.

        Args:
            inputs: the network's arguments, with a batch dimension of 1.
            target: the target, likewise.
            outputs: what networks made of it, by name (``float``, ``quantized``).
        """
        return {}

    def picture_interest(self, target: Any, outputs: Mapping[str, Any]) -> float:
        """Return how much a picture of one sample tells; those that tell most are drawn, the first among equals.

        Args:
            target: the target, with a batch dimension of 1.
            outputs: what networks made of the sample, by name, the one in training last.
        """
        return 0.0


class EndlessSamples(Protocol):
    """Samples that are drawn anew in every epoch: item k is a function of (seed, k) alone, for any k ≥ 0.

    Epoch e takes the items e·len to (e+1)·len − 1 in their order, which is the data set's to choose, shared among
    the processes.
    """

    endless: ClassVar[Literal[True]] = True

    def __len__(self) -> int:
        """Return the number of items in an epoch."""
        ...

    def __getitem__(self, index: int, /) -> Any:
        """Return item ``index``."""
        ...


_TASKS = "hessrank.distill.tasks"
TASKS: Registry[type[Task]] = Registry(
    "task", {"lowlight": f"{_TASKS}.lowlight.task", "classification": f"{_TASKS}.classification.task"}
)
