"""Keeps a network that a file asks for as large as the file can fill."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks
from torch.nn.parameter import is_lazy

from hessrank.errors import LoadError
from hessrank.files.size_limits import check_claim, check_modules, check_room


@contextmanager
def limit_size(path: Path | None, *, size: int | None = None) -> Iterator[None]:
    """Stop a network in the making as soon as it is too large for its file.

    What every module registers is counted.

    It stops a layer of 10⁹ channels before memory is written to, and 10⁹ layers after the first of them.

    Args:
        path: the file whose weights go into the network; None where there are none: memory is the limit then.
        size: of the file; of all of them where ``path`` is a folder.

    Raises:
        LoadError: the network is far larger than the file, or has more modules than any network needs.
    """
    count = _Count(path, size)
    handles = [
        hooks.register_module_parameter_registration_hook(count.tensor),
        hooks.register_module_buffer_registration_hook(count.tensor),
        hooks.register_module_module_registration_hook(count.module),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def build_without_memory(factory: Callable[..., nn.Module], arch_args: Mapping[str, Any]) -> None:
    """Build a network of ours without memory, for `limit_size` to count.

    Errors are left to the real one.

    Raises:
        LoadError: as `limit_size` has it.
    """
    with suppress(AttributeError, RuntimeError, TypeError, ValueError), torch.device("meta"):
        factory(**arch_args)


class _Count:
    def __init__(self, path: Path | None, size: int | None) -> None:
        self._path, self._size = path, size
        self._bytes = self._modules = 0

    def tensor(self, _: nn.Module, name: str, value: Tensor | None) -> None:
        if not isinstance(value, Tensor) or is_lazy(value):
            return
        self._bytes += value.numel() * value.element_size()
        if self._path is None:
            check_room(self._bytes, "the network", error=LoadError)
        else:
            check_claim(self._path, self._bytes, "the network that it is for", error=LoadError, size=self._size)

    def module(self, _: nn.Module, name: str, value: nn.Module | None) -> None:
        self._modules += 1
        check_modules(self._modules, self._path, error=LoadError)
