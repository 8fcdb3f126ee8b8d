"""``charbonnier``: the smooth L1 of image restoration (Charbonnier et al. 1994)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hessrank.analysis.losses.paired_tensors import pair_tensors, sum_by_sample
from hessrank.analysis.losses.position_weights import element_weights
from hessrank.analysis.registries import LOSSES


@LOSSES.register("charbonnier")
class Charbonnier:
    """Mean over a sample's elements of √((z − t)² + ε²), ε = 10⁻³: a smooth L1.

    Example:
        ε at the target, |z − t| far from it; the curvature, 1/ε at the target, is nothing there:

        >>> import torch
        >>> from hessrank.analysis.losses import make_loss
        >>> loss, output, target = make_loss("charbonnier"), torch.tensor([[0.0], [3.0]]), torch.zeros(2, 1)
        >>> [round(value, 4) for value in loss.per_sample(output, target).tolist()]
        [0.001, 3.0]
        >>> [round(root**2) for root in loss.factor(output, target, [torch.ones(2, 1)])[0].flatten().tolist()]
        [1000, 0]
    """

    name = "charbonnier"
    needs_target = True
    leaves_out_padding = True
    epsilon = 1e-3

    def per_sample(self, output: Any, target: Any) -> Tensor:
        """Return Σ mean √((z − t)² + ε²) over the output tensors, shape (batch,)."""
        pairs, real = pair_tensors(self.name, output, target)
        return torch.stack([sum_by_sample(self._root(z, t) * element_weights(z, real)) for z, t in pairs]).sum(0)

    def factor(self, output: Any, target: Any, w: Sequence[Tensor]) -> list[Tensor]:
        """Return √(ε²/((z − t)² + ε²)^(3/2)/m) w: B is diagonal."""
        pairs, real = pair_tensors(self.name, output, target)
        scales = [
            self.epsilon * self._root(z, t).detach() ** -1.5 * element_weights(z, real).sqrt() for z, t in pairs
        ]
        return [v * s for v, s in zip(w, scales, strict=True)]

    def _root(self, z: Tensor, t: Tensor) -> Tensor:
        return torch.sqrt((z - t).square() + self.epsilon**2)
