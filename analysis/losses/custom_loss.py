"""A user's own function as a loss."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from hessrank.errors import LossError
from hessrank.network.outputs import output_tensors
from hessrank.user_code import explain_errors


class CustomLoss:
    """A user's ``fn(output, target)`` or ``fn(output)`` as a loss.

    It gets one sample at a time, so that any mean in it is over one sample.
    """

    def __init__(self, function: Callable[..., Tensor], name: str) -> None:
        """Wrap ``function``, which is given batches of one."""
        self.name = name
        self.needs_target = _takes_target(function)
        self._function = function

    def per_sample(self, output: Any, target: Any) -> Tensor:
        """Return the function's value on each sample, shape (batch,)."""
        count = output_tensors(output)[0].shape[0]
        return torch.stack([self._call_once(_slice(output, i), _slice(target, i)) for i in range(count)])

    def factor(self, output: Any, target: Any, w: Sequence[Tensor]) -> None:
        """Return None: nothing is known of its curvature."""
        return None

    def _call_once(self, output: Any, target: Any) -> Tensor:
        with explain_errors(f"loss {self.name!r}"):
            value = self._function(output, target) if self.needs_target else self._function(output)
        if not isinstance(value, Tensor) or value.numel() != 1:
            shape = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise LossError(f"loss {self.name!r} returned {shape} for one sample: it should return one number")
        return value.reshape(())


def _takes_target(function: Callable[..., Tensor]) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:
        return True
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return len([p for p in positional if p.default is p.empty]) > 1 or any(
        p.kind is p.VAR_POSITIONAL for p in parameters
    )


def _slice(nest: Any, index: int) -> Any:
    return tree_map(lambda leaf: leaf[index : index + 1] if isinstance(leaf, Tensor) and leaf.ndim else leaf, nest)
