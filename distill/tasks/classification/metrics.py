"""How good a classifier is, over all samples of a validation run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from hessrank.analysis.losses import make_loss
from hessrank.errors import LossError
from hessrank.network.outputs import output_tensors
from hessrank.text import shape_text


def class_logits(output: Any) -> Tensor:
    """Return the logits B×C in what a network returned: its only tensor, or what a mapping has under "logits".

    Raises:
        LossError: there are no logits B×C in it.
    """
    found = output_tensors(output["logits"] if isinstance(output, Mapping) and "logits" in output else output)
    if len(found) != 1 or found[0].ndim != 2:
        shapes = ", ".join(shape_text(tensor.shape) for tensor in found) or "no tensor"
        raise LossError(f"a classifier returns one tensor of logits, batch×classes; this network returns {shapes}")
    return found[0]


def cross_entropies(output: Any, target: Tensor) -> Tensor:
    """Return each sample's cross-entropy in nats, shape (B,).

    Args:
        output: as :func:`class_logits` takes it.
        target: labels, integers of shape (B,).

    Raises:
        LossError: there are no logits B×C, not as many labels, or one that is none of 0 to C − 1.
    """
    logits = class_logits(output)
    if target.ndim != 1:
        raise LossError(f"a classifier's target is one label a picture; this one is {shape_text(target.shape)}")
    return make_loss("cross-entropy").per_sample(logits, target)


def mean_cross_entropy(output: Any, target: Tensor) -> Tensor:
    """Return the mean of :func:`cross_entropies`, a scalar."""
    return cross_entropies(output, target).mean()


class Top1(Metric):
    """Share of samples whose largest logit is that of their label, in percent; counted exactly."""

    higher_is_better = True
    correct: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("correct", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, output: Any, target: Tensor) -> None:
        """Count a batch.

        Raises:
            LossError: as :func:`cross_entropies`.
        """
        self.count += len(cross_entropies(output, target))
        self.correct += (class_logits(output).argmax(1) == target).sum()

    def compute(self) -> Tensor:
        """Return the percentage, a scalar."""
        return 100 * self.correct / self.count
