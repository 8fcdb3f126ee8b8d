"""Freezes the user's model for a block, and leaves it as it was.

Inside the block the model is in eval mode (dropout off, batch norm on its running statistics) with frozen
parameters; afterwards modes, ``requires_grad``, buffers and all random states are what they were before.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from hessrank.models.wrappers import without_wrappers


@contextmanager
def freeze(model: nn.Module) -> Iterator[None]:
    """Freeze ``model`` inside the block, and restore it at the end.

    It is restored after an exception too.

    Args:
        model: a network that is in no wrapper; its parts are looked at without theirs.
    """
    with ExitStack() as stack:
        stack.enter_context(without_wrappers(model))
        stack.enter_context(_keep_attributes(model))
        stack.enter_context(_keep_gradient_flags(model))
        stack.enter_context(_keep_values(model))
        stack.enter_context(_keep_random_states(model))
        stack.enter_context(_turn_off_attention_fast_path())
        yield


@contextmanager
def _keep_attributes(model: nn.Module) -> Iterator[None]:
    """Restore modes and attributes that a forward may assign.

    These are counters, caches, buffers, the last attention map.
    """
    attributes = [vars(module) for module in model.modules()]
    spaces = [own[name] for own in attributes for name in ("_buffers", "_parameters", "_modules") if name in own]
    kept = [(space, dict(space)) for space in (*attributes, *spaces)]
    model.eval()
    try:
        yield
    finally:
        for space, content in kept:
            space.update(content)
            for name in space.keys() - content.keys():
                del space[name]


@contextmanager
def _keep_gradient_flags(model: nn.Module) -> Iterator[None]:
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    for parameter, _ in flags:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


@contextmanager
def _keep_values(model: nn.Module) -> Iterator[None]:
    """Restore the values of tensors that a forward may write to.

    It does so even in eval mode (counters, caches, ``max_norm``).
    """
    tensors = [*model.buffers(), *(m.weight for m in model.modules() if getattr(m, "max_norm", None) is not None)]
    kept = [(tensor, tensor._version, tensor.detach().clone()) for tensor in tensors if isinstance(tensor, Tensor)]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, version, value in kept:
                if tensor._version != version:
                    if not tensor.is_leaf:  # an activation was written to it
                        tensor.detach_()
                    tensor.copy_(value)


@contextmanager
def _keep_random_states(model: nn.Module) -> Iterator[None]:
    devices = {p.device for p in model.parameters() if p.device.type == "cuda"}
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=list(devices)):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


@contextmanager
def _turn_off_attention_fast_path() -> Iterator[None]:
    """Turn torch.nn's fast path of inference off inside the block.

    On it, transformer layers skip their sub-modules, and our hooks.
    """
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)
