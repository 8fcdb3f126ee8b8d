"""Looks through wrappers, which change how a network runs, not what it computes.

What is inside keeps its own layer names: ``conv1``, not ``module.conv1`` or ``_orig_mod.conv1``.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

_BY_CLASS = (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)
_BY_ATTRIBUTE = ("_orig_mod", "_checkpoint_wrapped_module")
"""What ``torch.compile`` and activation checkpointing wrap; their classes take seconds to import."""
_COMPILED = "_compiled_call_impl"  # set by ``Module.compile()``, which wraps a module's own call


def unwrap(model: nn.Module) -> nn.Module:
    """Return the network inside all wrappers of ``model``.

    Wrappers are ``DataParallel``, ``DistributedDataParallel``, ``AveragedModel``, what ``torch.compile`` returns, and
    activation checkpointing's.
    """
    while (inner := _get_wrapped(model)) is not None:
        model = inner
    return model


def wrappers_of(model: nn.Module) -> tuple[str, ...]:
    """Return the class names of the wrappers in and around ``model``, each once."""
    return tuple(dict.fromkeys(type(part).__name__ for part in model.modules() if _get_wrapped(part) is not None))


def take_out(model: nn.Module) -> nn.Module:
    """Return the network without wrappers; its parts lose theirs for good."""
    network = unwrap(model)
    for part, name, wrapper in _find_wrapped_parts(network):
        part._modules[name] = unwrap(wrapper)
    return network


@contextmanager
def without_wrappers(model: nn.Module) -> Iterator[nn.Module]:
    """Give the network without wrappers, and put them back at the end.

    A network that ``Module.compile()`` compiled is called as it was written.
    """
    network = unwrap(model)
    parts = _find_wrapped_parts(network)
    compiled = [(part, vars(part)[_COMPILED]) for part in network.modules() if vars(part).get(_COMPILED)]
    try:
        take_out(network)
        for part, _ in compiled:
            setattr(part, _COMPILED, None)
        yield network
    finally:
        for part, name, wrapper in parts:
            part._modules[name] = wrapper
        for part, call in compiled:
            setattr(part, _COMPILED, call)


def _find_wrapped_parts(network: nn.Module) -> list[tuple[nn.Module, str, nn.Module]]:
    """Return each wrapped part: its holder, its name in it, and the wrapper."""
    return [
        (holder, name, part)
        for holder in network.modules()
        for name, part in holder._modules.items()
        if part is not None and _get_wrapped(part) is not None
    ]


def _get_wrapped(module: nn.Module) -> nn.Module | None:
    """Return what a wrapper wraps; None for what is no wrapper."""
    if isinstance(module, _BY_CLASS):
        inner: nn.Module = module.module
        return inner
    own: dict[str, nn.Module] = getattr(module, "_modules", {})
    return next((own[name] for name in _BY_ATTRIBUTE if name in own), None)


def copy_network(model: nn.Module) -> nn.Module:
    """Return a copy of the network inside ``model``'s wrappers.

    Of the tensors that it keeps from its last run, the copy has the values without their history.
    """
    with without_wrappers(model) as network:
        kept = [value for module in network.modules() for value in vars(module).values() if isinstance(value, Tensor)]
        return copy.deepcopy(network, {id(tensor): tensor.detach().clone() for tensor in kept if not tensor.is_leaf})
