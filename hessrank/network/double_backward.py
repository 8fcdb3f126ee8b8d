"""Makes forward passes differentiable twice, where torch's kernels are not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode


class _SmoothedKernels(TorchFunctionMode):
    """Hardsigmoid as relu6(x + 3)/6; its fused backward has no derivative."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func in (F.hardsigmoid, torch._C._nn.hardsigmoid):
            return F.relu6(args[0] + 3) / 6
        return func(*args, **(kwargs or {}))


@contextmanager
def allow_double_backward() -> Iterator[None]:
    """Run forwards in the block on kernels that have a second derivative.

    Attention runs on its math backend.
    """
    with sdpa_kernel(SDPBackend.MATH), _SmoothedKernels():
        yield
