"""Scales stay in float32, whatever precision the network around them is cast to."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


class KeepsPrecision(nn.Module):
    """A module whose tensors move between devices but keep their dtype.

    ``model.half()`` would round a scale to 11 bits, and with it every value of a 10-bit grid.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> KeepsPrecision:
        def move(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        super()._apply(move, recurse)  # type: ignore[no-untyped-call]
        return self
