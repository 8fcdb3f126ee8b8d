"""``mse``: the mean squared error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hessrank.analysis.losses.paired_tensors import pair_tensors, split_padded, sum_by_sample
from hessrank.analysis.losses.position_weights import element_weights
from hessrank.analysis.registries import LOSSES
from hessrank.network.outputs import output_tensors


@LOSSES.register("mse")
class SquaredError:
    """Mean over a sample's m elements of (z − t)²: B = (2/m) I.

    Several output tensors add up.

    Example:
        With two elements a sample B is the identity, and so is its factor:

        >>> import torch
        >>> from hessrank.analysis.losses import make_loss
        >>> loss, output, target = make_loss("mse"), torch.tensor([[1.0, 3.0]]), torch.zeros(1, 2)
        >>> loss.per_sample(output, target).tolist(), loss.factor(output, target, [torch.ones(1, 2)])
        ([5.0], [tensor([[1., 1.]])])
    """

    name = "mse"
    needs_target = True
    leaves_out_padding = True

    def per_sample(self, output: Any, target: Any) -> Tensor:
        """Return Σ mean (z − t)² over the output tensors, shape (batch,)."""
        pairs, real = pair_tensors(self.name, output, target)
        return torch.stack([sum_by_sample((z - t).square() * element_weights(z, real)) for z, t in pairs]).sum(0)

    def factor(self, output: Any, target: Any, w: Sequence[Tensor]) -> list[Tensor]:
        """Return √(2/m) w."""
        real = split_padded(target)[1]
        return [v * (2 * element_weights(z, real)).sqrt() for z, v in zip(output_tensors(output), w, strict=True)]
