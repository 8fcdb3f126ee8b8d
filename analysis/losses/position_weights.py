"""The weight of each element and position in its sample's loss; padding has none."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from hessrank.network.outputs import class_dim
from hessrank.network.padding import counts_by_position


def element_weights(z: Tensor, real: Tensor | None) -> Tensor:
    """Return each element's weight in the mean over its sample, 1/m.

    Its shape broadcasts to that of ``z``.

    Args:
        z: an output, samples along dimension 0.
        real: which positions are no padding, B×T; None if all are. Heeded where ``z`` is B×T×….
    """
    if real is None or not counts_by_position(z, real):
        return z.new_tensor(1 / max(1, z[0].numel()))
    per_position = _weigh_real_positions(real, z) / max(1, z[0, 0].numel())
    return per_position.reshape(*real.shape, *[1] * (z.ndim - 2))


def position_weights(logits: Tensor, real: Tensor | None) -> Tensor:
    """Return each position's weight in the mean over its sample.

    Its shape broadcasts to that of the logits without the classes.

    Args:
        logits: B×C×…, or B×T×C.
        real: which positions are no padding, B×T; None if all are. Heeded where the logits are B×T×C.
    """
    if real is None or class_dim(logits) == 1 or not counts_by_position(logits, real):
        return logits.new_tensor(logits.shape[class_dim(logits)] / max(1, logits[0].numel()))
    return _weigh_real_positions(real, logits)


def _weigh_real_positions(real: Tensor, like: Tensor) -> Tensor:
    kept = real.to(like)
    return kept / kept.sum(1, keepdim=True).clamp(min=1)


def divergence(z: Tensor, t: Tensor, real: Tensor | None) -> Tensor:
    """Return KL(softmax t ‖ softmax z), mean over positions, shape (batch,)."""
    dim = class_dim(z)
    log_p, log_q = F.log_softmax(t, dim), F.log_softmax(z, dim)
    each = (log_p.exp() * (log_p - log_q)).sum(dim) * position_weights(z, real)
    return each.reshape(len(z), -1).sum(1)


def softmax_factor(z: Tensor, w: Tensor, positions: Tensor, dim: int | None = None) -> Tensor:
    """Return √p∘w − p⟨√p, w⟩ at each position, times the root of the position's part.

    Args:
        z: logits.
        w: what S is multiplied with, of the logits' shape.
        positions: each position's part, as :func:`position_weights` gives it.
        dim: where classes lie; None: as :func:`class_dim` says.
    """
    dim = class_dim(z) if dim is None else dim
    p = F.softmax(z.detach(), dim)
    root = p.sqrt()
    scale = positions.sqrt().unsqueeze(dim) if positions.ndim else positions.sqrt()
    return (root * w - p * (root * w).sum(dim, keepdim=True)) * scale
