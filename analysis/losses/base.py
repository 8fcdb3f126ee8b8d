"""What an estimator needs of a loss: its value by sample, and its curvature.

Every loss gives ℓᵢ for each sample of a batch. Some also know a factor S of their Hessian B = S Sᵀ with
respect to the output z; then one backward pass of S w does for a probe w what otherwise takes two.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from hessrank.errors import LossError
from hessrank.network.outputs import detach, output_tensors
from hessrank.text import first_line


class Loss(Protocol):
    """What an estimator needs of a loss.

    ``output`` is whatever the network returned for a batch.

    A loss with an attribute ``leaves_out_padding`` that is true is given its target as
    :class:`~hessrank.network.padding.Padded` where a batch has padding, and leaves that out; any other sees the whole
    output.
    """

    @property
    def name(self) -> str:
        """Return the name, as given on the command line."""
        ...

    @property
    def needs_target(self) -> bool:
        """Return whether the data must hold a target.

        If not, the target is the model's own output.
        """
        ...

    def per_sample(self, output: Any, target: Any) -> Tensor:
        """Return ℓᵢ of each sample, shape (batch,), differentiable in ``output``."""
        ...

    def factor(self, output: Any, target: Any, w: Sequence[Tensor]) -> list[Tensor] | None:
        """Return S w, one tensor for each output tensor; None where no S is known."""
        ...


def curvature_times(loss: Loss, output: Any, target: Any, w: Sequence[Tensor]) -> list[Tensor]:
    """Return B w by double backward, B the Hessian of the summed loss by ``output``.

    Args:
        loss: the loss.
        output: what the network returned; its graph is not touched.
        target: what the loss compares it with.
        w: a tensor for each of the output's tensors, :func:`hessrank.network.outputs.output_tensors`.
    """
    output = detach(output, requires_grad=True)
    z = output_tensors(output)
    with torch.enable_grad():
        total = loss.per_sample(output, target).sum()
        if not total.requires_grad:
            raise LossError(f"loss {loss.name!r} does not depend on the network's output")
        slopes = torch.autograd.grad(total, z, create_graph=True, allow_unused=True)
        pairs = [(g, v) for g, v in zip(slopes, w, strict=True) if g is not None and g.requires_grad]
        if not pairs:
            return [torch.zeros_like(v) for v in w]
        slope, weight = zip(*pairs, strict=True)
        try:
            products = torch.autograd.grad(slope, z, weight, allow_unused=True)
        except RuntimeError as error:
            if "not implemented" not in str(error) and "not differentiable" not in str(error):
                raise
            raise LossError(
                f"loss {loss.name!r} has no second derivative in torch ({first_line(error)}): "
                "use --loss self, or write it in other operations"
            ) from error
    return [torch.zeros_like(v) if p is None else p for p, v in zip(products, w, strict=True)]


def no_curvature(name: str) -> LossError:
    """Build the error for a loss whose second derivative is zero."""
    return LossError(
        f"loss {name!r} has zero second derivative almost everywhere (as L1 has), so every trace would be zero: "
        "use --loss self (no labels needed), mse, or charbonnier, the smooth L1 of image restoration"
    )
