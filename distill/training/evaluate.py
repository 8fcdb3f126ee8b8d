"""A network judged by a task's metrics, in a plain loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torchmetrics import Metric

from hessrank.data.batch import Batch, bind_fields
from hessrank.distill.tasks.base import Task
from hessrank.distill.tasks.given import OneNumber
from hessrank.errors import ModelError
from hessrank.user_code import explain_errors

Network = Callable[..., Any]


def on_device(batch: Batch, device: torch.device) -> Batch:
    """Return the batch with all its tensors on a device."""
    return batch.map(lambda tensor: tensor.to(device))


@torch.no_grad()
def judge(network: Network, task: Task, batches: Any, signature: nn.Module, device: torch.device) -> dict[str, float]:
    """Return a task's metrics of a network, by name.

    Args:
        network: called as the model is; in evaluation mode already.
        task: whose metrics they are.
        batches: validation data, as a data loader gives them.
        signature: the module whose ``forward`` says what is an argument and what the target.
        device: where the network is.

    Raises:
        DataError: the data do not fit the network.
    """
    metrics = {name: metric.to(device) for name, metric in task.metrics().items()}
    for fields in batches:
        batch = on_device(bind_fields(fields, signature, needs_target=True), device)
        with explain_errors("the network", ModelError):
            output = network(*batch.args, **batch.kwargs)
        update(metrics, output, batch.target)
    return {name: float(metric.compute()) for name, metric in metrics.items()}


def update(metrics: Mapping[str, Metric], output: Any, target: Any) -> None:
    """Show a batch to metrics.

    Raises:
        LossError: one of them does not take it; it is named.
    """
    for name, metric in metrics.items():
        with explain_errors(f"the metric {name!r}"):
            metric.update(output, target)


def task_loss(task: Task, output: Any, target: Any) -> Tensor:
    """Return a task's loss of a batch.

    Raises:
        LossError: it cannot be computed, or is not one number.
    """
    with explain_errors("the loss"):
        return OneNumber(task.loss)(output, target)


def finite(nest: Any) -> bool:
    """Return whether all floating-point tensors in a nest are finite."""
    tensors = (leaf for leaf in tree_leaves(nest) if isinstance(leaf, Tensor) and leaf.is_floating_point())
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)
