"""What every estimator takes and gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from hessrank.analysis.estimators.probes import Probes, output_probes
from hessrank.analysis.losses import Loss, Self, curvature_times, no_curvature
from hessrank.data.batch import Batch
from hessrank.errors import LossError
from hessrank.network.layer_facts import SampleAxis
from hessrank.network.network import Network
from hessrank.network.outputs import detach, output_tensors
from hessrank.network.padding import Padded, real_positions
from hessrank.network.weights import Weight


@dataclass(frozen=True)
class Work:
    """One piece of work for an estimator: some probes on one batch.

    Attributes:
        network: the network, frozen.
        loss: the loss.
        batch: the samples.
        probes: where probe vectors come from.
        indices: which probes to use; an estimator without randomness ignores them.
        layers: names of the layers whose traces are wanted, in the order of the results.
        weights: the weights whose traces are wanted, in the order of the results.
        axes: where each layer keeps its samples.
        copies: how often a sample may stand in one batch, each time with a probe of its own: speed and memory.
        precision: half precision for first-order passes; None for the network's own.
    """

    network: Network
    loss: Loss
    batch: Batch
    probes: Probes
    indices: range
    layers: Sequence[str]
    weights: Sequence[Weight]
    axes: Mapping[str, SampleAxis]
    copies: int = 1
    precision: torch.dtype | None = None


@dataclass(frozen=True)
class Estimates:
    """Unbiased estimates from one probe, float64 on the CPU.

    Attributes:
        layers: tr H of each layer and sample, shape (layers, batch).
        weights: the same of each weight, shape (weights, batch).
    """

    layers: Tensor
    weights: Tensor

    def __add__(self, other: Estimates) -> Estimates:
        return Estimates(self.layers + other.layers, self.weights + other.weights)

    def __mul__(self, factor: float) -> Estimates:
        return Estimates(self.layers * factor, self.weights * factor)

    def __sub__(self, other: Estimates) -> Estimates:
        return self + other * -1

    def is_finite(self) -> bool:
        """Return whether all of them are."""
        return bool(self.layers.isfinite().all() and self.weights.isfinite().all())


class Estimator(Protocol):
    """Estimates the traces of all layers on a batch, one probe after the other."""

    deterministic: bool
    """Whether one round gives the exact trace of a sample, so that more probes would change nothing."""

    def __call__(self, work: Work) -> Iterator[Estimates]:
        """Yield the estimates of each probe in ``work.indices``.

        A deterministic estimator yields once.
        """
        ...


FEW_OUTPUTS = 64
"""Up to so many, every output gets a backward pass of its own, and there is no probe noise."""
OUTPUT = "output"
_PROBES_TO_BE_SURE = 32


def find_target(loss: Loss, batch: Batch, output: Any) -> Any:
    """Return what the loss compares ``output`` with.

    It is the data's target or, for a loss without one, the output itself. Where the batch has padding and the loss
    leaves it out, it also says which positions count.
    """
    target = batch.target if loss.needs_target else detach(output)
    real = real_positions(batch) if getattr(loss, "leaves_out_padding", False) else None
    return target if real is None else Padded(target, real)


def differentiable_outputs(loss: Loss, batch: Batch, output: Any) -> list[Tensor]:
    """Return the output tensors; check that their first dimension is the samples'.

    Raises:
        LossError: an output keeps its samples elsewhere than along dimension 0.
    """
    tensors = output_tensors(output)
    for tensor in tensors:
        if tensor.shape[0] != len(batch):
            raise LossError(
                f"the network returns {'×'.join(map(str, tensor.shape))} for {len(batch)} samples: "
                f"loss {loss.name!r} needs the samples along the output's first dimension"
            )
    if not any(tensor.requires_grad for tensor in tensors):
        raise LossError("the network returns no floating-point tensor that depends on an activation")
    return tensors


def check_curvature(work: Work) -> None:
    """Refuse a loss whose curvature takes random probes to zero, or to NaN.

    A single probe would not do: at even odds between two classes every other one has no image.

    Raises:
        LossError: saying why, and what to use instead.
    """
    output = work.network.run(work.batch, lambda *_: None, differentiable=True).output
    tensors = differentiable_outputs(work.loss, work.batch, output)
    target = find_target(work.loss, work.batch, output)
    if not bool(work.loss.per_sample(output, target).isfinite().all()):
        raise LossError(f"loss {work.loss.name!r} is NaN or infinite on sample {work.batch.samples[0]}")
    for probe in range(_PROBES_TO_BE_SURE):
        w = output_probes(work.probes, tensors, work.batch.samples, probe)
        with torch.no_grad():
            product = work.loss.factor(output, target, w)
        product = curvature_times(work.loss, output, target, w) if product is None else product
        if not all(bool(part.isfinite().all()) for part in product):
            raise LossError(f"loss {work.loss.name!r} has NaN or infinite curvature at the network's output")
        if any(bool(part.count_nonzero()) for part in product):
            return
    if isinstance(work.loss, Self):
        raise LossError(
            f"loss {work.loss.name!r}: the logits are so far apart that their softmax is 0 or 1 to rounding, "
            "and nothing moves it: look at the data's scale, or use --loss self-mse"
        )
    raise no_curvature(work.loss.name)


def zeros(rows: int, batch: Batch) -> Tensor:
    """Return a float64 tensor of zeros, rows × batch size."""
    return torch.zeros(rows, len(batch), dtype=torch.float64)
