"""A task made of a user's own pieces, for ``hessrank.train(model, policy, data, …)``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torchmetrics import Metric

from hessrank.analysis.losses import LOSSES, is_registered, make_loss
from hessrank.distill.tasks.base import Task
from hessrank.errors import LossError, OptionError, unknown_name
from hessrank.plugins import import_attribute

BatchLoss = Callable[[Any, Any], Tensor]


class MeanLoss(Metric):
    """The mean of a loss over all samples."""

    total: Tensor
    count: Tensor

    def __init__(self, loss: BatchLoss) -> None:
        """Average ``loss``, the mean of a batch."""
        super().__init__()
        self._loss = loss
        for name in ("total", "count"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, output: Any, target: Any) -> None:
        """Add a batch."""
        size = len(next(leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)))
        self.total += self._loss(output, target).double() * size
        self.count += size

    def compute(self) -> Tensor:
        """Return the mean."""
        return self.total / self.count


class GivenTask(Task):
    """Data, a loss and metrics that the caller has in hand; the network is the caller's too."""

    def __init__(
        self,
        data: Any,
        validation: Any,
        *,
        loss: str | BatchLoss = "cross-entropy",
        metrics: Mapping[str, Metric] | None = None,
        monitor: str | None = None,
        mode: Literal["max", "min"] | None = None,
        validation_batch_size: int = 1,
    ) -> None:
        """Put a task together.

        Args:
            data: what to train on: tensors, a data set or a data loader of inputs and target.
            validation: what to judge with, likewise; None takes ``data``.
            loss: ``cross-entropy``, ``cross-entropy,ignore_index=255``, ``mse``, ``l1``, ``charbonnier``,
                ``file.py:fn`` or a function of output and target that returns the mean over the batch.
            metrics: torchmetrics by name; the loss is there as ``loss`` anyway.
            monitor: the metric that decides which epoch is best; the first of ``metrics``, or ``loss``.
            mode: whether it should be large (``max``) or small (``min``); of the loss, small.
            validation_batch_size: samples judged together.

        Raises:
            OptionError: ``metrics`` are no torchmetrics by name.
            UnknownNameError: no such loss, or ``monitor`` is none of the metrics.
        """
        if metrics is not None and not isinstance(metrics, Mapping):
            raise OptionError(f"metrics is a {type(metrics).__name__}: give torchmetrics by name, {{'accuracy': …}}")
        for name, metric in (metrics or {}).items():
            if not isinstance(metric, Metric):
                raise OptionError(f"metric {name!r} is a {type(metric).__name__}, no torchmetrics.Metric")
        self._data, self._validation = data, data if validation is None else validation
        self._loss = OneNumber(batch_loss(loss))
        self._given = dict(metrics or {})
        self.monitor = monitor or next(iter(self._given), "loss")
        self.mode = mode or ("min" if self.monitor == "loss" else "max")
        self.validation_batch_size = validation_batch_size
        if self.monitor not in {*self._given, "loss"}:
            raise unknown_name("metric", self.monitor, [*self._given, "loss"])

    def model(self, **arch_args: Any) -> nn.Module:
        """Refuse: the network is the caller's."""
        raise OptionError("this task was made of data and a loss: it has no network of its own")

    def training_data(self) -> Any:
        """Return the data to train on."""
        return self._data

    def validation_data(self) -> Any:
        """Return the data to judge with."""
        return self._validation

    def loss(self, output: Any, target: Any) -> Tensor:
        """Return the mean loss of a batch."""
        return self._loss(output, target)

    def metrics(self) -> Mapping[str, Metric]:
        """Return new metrics, the loss last."""
        return {**{name: metric.clone() for name, metric in self._given.items()}, "loss": MeanLoss(self._loss)}


class OneNumber:
    """A loss whose value is one number, or an error."""

    def __init__(self, loss: BatchLoss) -> None:
        """Check ``loss``."""
        self._loss = loss

    def __call__(self, output: Any, target: Any) -> Tensor:
        """Return the loss, a scalar.

        Raises:
            LossError: it is no tensor, or more than one number.
        """
        found: Any = self._loss(output, target)
        if not isinstance(found, Tensor) or found.numel() != 1:
            what = f"{found.numel()} values" if isinstance(found, Tensor) else f"a {type(found).__name__}"
            raise LossError(f"the loss returned {what}: it should return the mean over the batch, one number")
        return found.reshape(())


def batch_loss(loss: str | BatchLoss) -> BatchLoss:
    """Return the function of output and target behind a name.

    Raises:
        UnknownNameError: there is none of this name.
    """
    if not isinstance(loss, str):
        return loss
    if loss == "l1":
        return F.l1_loss
    if is_registered(loss):
        per_sample = make_loss(loss).per_sample
        return lambda output, target: per_sample(output, target).mean()
    if ":" in loss:
        found: BatchLoss = import_attribute(loss, what="loss")
        return found
    raise unknown_name("loss", loss, ["l1", *LOSSES])
