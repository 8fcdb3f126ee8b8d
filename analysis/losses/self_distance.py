"""``self``, ``self-kl``, ``self-mse``: the distance from the model's own output."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from hessrank.analysis.losses.paired_tensors import pair_tensors, split_padded, sum_by_sample
from hessrank.analysis.losses.position_weights import (
    divergence,
    element_weights,
    position_weights,
    softmax_factor,
)
from hessrank.analysis.registries import LOSSES
from hessrank.network.outputs import class_dim, may_be_logits, named_outputs
from hessrank.text import shapes_text


class Self:
    """The distance of the output from the model's own float output: needs no labels.

    KL divergence KL(p‖p′) in nats for tensors of logits, else the mean over a sample's elements of the
    squared difference; several output tensors add up. At the model's own output the gradient is zero, so
    the Hessian with respect to any activation *is* the Gauss-Newton matrix.
    """

    needs_target = False
    leaves_out_padding = True

    def __init__(self, name: str, is_logits: Callable[[str, Tensor], bool]) -> None:
        """Take the function that decides by name and shape whether an output holds logits."""
        self.name = name
        self._is_logits = is_logits

    def logits_among(self, output: Any) -> list[str]:
        """Return the shapes of the output tensors that are taken for logits, as ``16×3``."""
        return [shapes_text([z]) for name, z in named_outputs(output) if self._is_logits(name, z)]

    def per_sample(self, output: Any, target: Any) -> Tensor:
        """Return the distance of ``output`` from the model's float output, shape (batch,)."""
        pairs, real = pair_tensors(self.name, output, target)
        parts = [
            divergence(z, t, real)
            if self._is_logits(name, z)
            else sum_by_sample((z - t).square() * element_weights(z, real))
            for (name, _), (z, t) in zip(named_outputs(output), pairs, strict=True)
        ]
        return torch.stack(parts).sum(0)

    def factor(self, output: Any, target: Any, w: Sequence[Tensor]) -> list[Tensor]:
        """Return S w: √p∘w − p⟨√p, w⟩ for logits, √(2/m) w otherwise."""
        real = split_padded(target)[1]
        return [
            softmax_factor(z, v, position_weights(z, real))
            if self._is_logits(name, z)
            else v * (2 * element_weights(z, real)).sqrt()
            for (name, z), v in zip(named_outputs(output), w, strict=True)
        ]


@LOSSES.register("self")
def self_loss() -> Self:
    """Make the distance that takes for logits what looks like them.

    Example:
        Two dimensions of three logits count as logits, those of an image do not:

        >>> import torch
        >>> from hessrank.analysis.losses import make_loss
        >>> loss = make_loss("self")
        >>> loss.logits_among(torch.zeros(16, 3)), loss.logits_among(torch.zeros(16, 3, 64, 64))
        (['16×3'], [])
    """
    return Self("self", may_be_logits)


@LOSSES.register("self-kl")
def self_kl() -> Self:
    """Make the KL divergence, of all outputs with two dimensions or more.

    Example:
        KL(½, ½ ‖ ¼, ¾) is half of ln(4/3):

        >>> import torch
        >>> from hessrank.analysis.losses import make_loss
        >>> moved, own = torch.tensor([[1.0, 3.0]]).log(), torch.zeros(1, 2)
        >>> round(make_loss("self-kl").per_sample(moved, own).item(), 4)
        0.1438
    """
    return Self("self-kl", lambda _, z: z.ndim >= 2 and z.shape[class_dim(z)] > 1)


@LOSSES.register("self-mse")
def self_mse() -> Self:
    """Make the squared distance.

    Example:
        >>> import torch
        >>> from hessrank.analysis.losses import make_loss
        >>> make_loss("self-mse").per_sample(torch.tensor([[1.0, 3.0]]), torch.zeros(1, 2)).tolist()
        [5.0]
    """
    return Self("self-mse", lambda *_: False)
