"""What a layer is called: the one module that owns layer names.

A layer is a node of the torch.fx graph that yields a floating-point tensor. A module call is named by its
target (``DBF.DBF_conv1.Conv1``), a function or method call by its node (``cat_3``), a module called again
gets ``_dup1``, ``_dup2``, … This is MQBench's rule, so a policy means the same to both.
"""

from __future__ import annotations

import operator
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from torch import fx, nn


@dataclass(frozen=True)
class Layer:
    """One ranked unit: an activation and the call that makes it.

    Attributes:
        name: the layer's name, unique in its network.
        kind: class name of the module (``Conv2d``), name of the function (``cat``), or ``input``.
        execution_index: position in the order of execution, from 0.
        module: dotted path of the module that was called; None for a function or an input.
    """

    name: str
    kind: str
    execution_index: int
    module: str | None


class Names:
    """Gives out layer names during one walk through a network, each only once."""

    def __init__(self, reserved: Collection[str] = ()) -> None:
        """Start with nothing given out.

        Args:
            reserved: dotted module paths, which a function's node may not take.
        """
        self._reserved = frozenset(reserved)
        self._given: set[str] = set()

    def for_module(self, path: str) -> str:
        """Return the name of the next call of the module at ``path``: itself, then ``_dup1``, then ``_dup2``."""
        name, repeat = path, 0
        while name in self._given or (repeat and name in self._reserved):
            repeat += 1
            name = f"{path}_dup{repeat}"
        self._given.add(name)
        return name

    def for_node(self, node_name: str) -> str:
        """Return a name for a function, method or placeholder node: its own unless a module has it."""
        name = node_name
        while name in self._given or name in self._reserved:
            name += "_call"
        self._given.add(name)
        return name


def module_paths(root: nn.Module) -> set[str]:
    """Return the dotted paths of all modules inside ``root``."""
    return {path for path, _ in root.named_modules(remove_duplicate=False) if path}


def node_kind(node: fx.Node) -> str:
    """Return what a node does, in one word: ``input``, ``cat``, ``view``."""
    if node.op == "placeholder":
        return "input"
    target: Any = node.target
    if isinstance(target, str):
        return target
    if target is operator.getitem:
        return "getitem"
    return str(getattr(target, "__name__", target))
