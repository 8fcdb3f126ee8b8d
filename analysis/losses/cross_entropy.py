"""Cross-entropy of logits and labels, for classifiers and language models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hessrank.analysis.losses.position_weights import softmax_factor
from hessrank.analysis.registries import LOSSES
from hessrank.errors import LossError
from hessrank.network.outputs import output_tensors
from hessrank.network.padding import Padded, counts_by_position
from hessrank.text import shapes_text

IGNORED = -100
"""The label that torch leaves out by default."""


@LOSSES.register("cross-entropy")
class CrossEntropy:
    """Cross-entropy of logits B×C×… and labels B×…, mean over positions, in nats.

    Logits B×T×C with labels B×T, as language models have them, do too; label t belongs to the logits at t. In an
    output that is a dict the logits are its entry ``logits``. B = (diag p − p pᵀ)/positions at each position that is
    not ignored (index −100 or another that is asked for, and padding).

    Example:
        Even odds cost ln 2, and B = ¼ [[1, −1], [−1, 1]] has the trace ½, the sum of the squares of its factor:

        >>> import torch
        >>> from hessrank.analysis.losses import make_loss
        >>> loss, logits, labels = make_loss("cross-entropy"), torch.zeros(1, 2), torch.tensor([0])
        >>> round(loss.per_sample(logits, labels).item(), 4)
        0.6931
        >>> sum(round(loss.factor(logits, labels, [w])[0].square().sum().item(), 4) for w in torch.eye(2).split(1))
        0.5
    """

    needs_target = True
    leaves_out_padding = True

    def __init__(self, ignore_index: int = IGNORED) -> None:
        """Leave out positions with the label ``ignore_index``."""
        self.ignore_index = ignore_index
        self.name = "cross-entropy" + (f",ignore_index={ignore_index}" if ignore_index != IGNORED else "")

    def per_sample(self, output: Any, target: Any) -> Tensor:
        """Return the mean cross-entropy over each sample's positions, shape (batch,)."""
        logits, labels, counted, dim = _match_labels(output, target, self.ignore_index)
        labels = labels.movedim(dim, 1) if labels.is_floating_point() else labels  # probabilities have classes too
        index = self.ignore_index
        losses = F.cross_entropy(logits.movedim(dim, 1), labels, reduction="none", ignore_index=index)
        return (losses * counted).reshape(len(logits), -1).sum(1)

    def factor(self, output: Any, target: Any, w: Sequence[Tensor]) -> list[Tensor]:
        """Return S w = √p∘w − p⟨√p, w⟩ at each position, times √(1/positions)."""
        logits, _, counted, dim = _match_labels(output, target, self.ignore_index)
        return [
            softmax_factor(z, v, counted, dim) if z is logits else torch.zeros_like(v)
            for z, v in zip(output_tensors(output), w, strict=True)
        ]


def _match_labels(output: Any, target: Any, ignored: int) -> tuple[Tensor, Tensor, Tensor, int]:
    """Return logits, labels, each position's weight, and the dimension of the classes.

    A position's weight is its part in the mean over its sample.
    """
    target, real = (target.values, target.real) if isinstance(target, Padded) else (target, None)
    logits = _find_logits(output)
    labels = _read_labels(target, logits)
    dim = _find_class_dim(logits, labels, named=isinstance(output, Mapping))
    if not labels.is_floating_point():
        _check_labels(labels, logits, dim, ignored)
    counted = torch.ones_like(logits.select(dim, 0)) if labels.is_floating_point() else (labels != ignored).to(logits)
    if real is not None and dim != 1 and counts_by_position(logits, real):
        counted = counted * real.to(counted)
    positions = counted.reshape(len(counted), -1).sum(1).clamp(min=1)
    return logits, labels, counted / positions.reshape(-1, *[1] * (counted.ndim - 1)), dim


def _find_class_dim(logits: Tensor, labels: Tensor, *, named: bool) -> int:
    """Return the dimension of the classes, by the shape of the labels.

    In doubt it is the last one if the output has names, else dimension 1.

    Only logits B×T×C leave a choice, and a doubt only where T = C or where the labels are probabilities.
    """
    if logits.ndim != 3:
        return 1
    if labels.is_floating_point():
        return 2 if named else 1
    fits = [dim for dim in (1, 2) if labels.shape == logits.select(dim, 0).shape]
    return fits[0] if len(fits) == 1 else 2 if named else 1


def _find_logits(output: Any) -> Tensor:
    if isinstance(output, Mapping) and "logits" in output:
        logits: Tensor = output["logits"]
        return logits
    tensors = output_tensors(output)
    if len(tensors) != 1 or tensors[0].ndim < 2:
        raise LossError(
            f"loss 'cross-entropy' takes one tensor of logits B×C×…; the network returns {shapes_text(tensors)}: "
            "write a loss of your own, --loss file.py:fn"
        )
    return tensors[0]


def _read_labels(target: Any, logits: Tensor) -> Tensor:
    """Return class indices as int64, or class probabilities unchanged."""
    if not isinstance(target, Tensor):
        raise LossError(f"loss 'cross-entropy': the target is a {type(target).__name__}, it should be labels")
    if target.is_floating_point() and target.shape != logits.shape:
        raise LossError(
            f"loss 'cross-entropy': the target is {shapes_text([target])} of "
            f"{str(target.dtype).removeprefix('torch.')}: "
            f"give integer labels, or probabilities of the logits' shape {shapes_text([logits])}"
        )
    return target if target.is_floating_point() else target.long()


def _check_labels(labels: Tensor, logits: Tensor, dim: int, ignored: int) -> None:
    classes, expected = logits.shape[dim], tuple(logits.select(dim, 0).shape)
    if tuple(labels.shape) != expected:
        raise LossError(
            f"loss 'cross-entropy': logits {shapes_text([logits])} want labels {'×'.join(map(str, expected))}, "
            f"the target is {shapes_text([labels])}"
        )
    outside = labels[(labels != ignored) & ((labels < 0) | (labels >= classes))]
    if outside.numel():
        label = int(outside.flatten()[0])
        raise LossError(
            f"label {label} is out of range: there are {classes} classes, 0 to {classes - 1}; if it stands for "
            f"what is to be ignored, the loss is cross-entropy,ignore_index={label}"
        )
