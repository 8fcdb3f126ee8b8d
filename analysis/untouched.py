"""Leaves the user's model as it was, whatever happens.

Inside the block the model is in eval mode (dropout off, batch norm on its running statistics) with frozen
parameters; afterwards modes, ``requires_grad``, buffers and all random states are what they were before.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import nn


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Freeze ``model`` for analysis and put everything back at the end, also after an exception."""
    with ExitStack() as stack:
        stack.enter_context(_modes_kept(model))
        stack.enter_context(_gradient_flags_kept(model))
        stack.enter_context(_buffers_kept(model))
        stack.enter_context(_random_states_kept(model))
        stack.enter_context(_attention_fast_path_off())
        yield


@contextmanager
def _modes_kept(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def _gradient_flags_kept(model: nn.Module) -> Iterator[None]:
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    for parameter, _ in flags:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


@contextmanager
def _buffers_kept(model: nn.Module) -> Iterator[None]:
    """A forward may write to buffers even in eval mode (counters, caches): write the old values back."""
    buffers = [(buffer, buffer._version, buffer.detach().clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, version, value in buffers:
                if buffer._version != version:
                    buffer.copy_(value)


@contextmanager
def _random_states_kept(model: nn.Module) -> Iterator[None]:
    devices = {p.device for p in model.parameters() if p.device.type == "cuda"}
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=list(devices)):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


@contextmanager
def _attention_fast_path_off() -> Iterator[None]:
    """torch.nn's transformer layers skip their sub-modules, and our hooks, on the inference fast path."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)
