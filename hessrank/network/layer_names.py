"""Names layers; no other module does.

A layer is a node of the torch.fx graph that yields a floating-point tensor. A module call is named by its
target (``DBF.DBF_conv1.Conv1``), a function or method call by its node (``cat_3``), a module called again
gets ``_dup1``, ``_dup2``, … This is MQBench's rule, so a policy means the same to both. Where there is no graph, a
function call is named by the module that makes it and by the same words (``encoder.layer.0.output.add``).
"""

from __future__ import annotations

import builtins
import operator
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

# Functions that only move or select values, or change their type: what they return lies on the grid of their input.
REARRANGEMENTS = frozenset(
    """
    pixel_shuffle pixel_unshuffle channel_shuffle flatten unflatten ravel reshape reshape_as view view_as permute
    transpose transpose_ t squeeze squeeze_ unsqueeze unsqueeze_ contiguous clone expand expand_as broadcast_to
    broadcast_tensors repeat repeat_interleave tile getitem get select narrow chunk split split_with_sizes
    tensor_split unbind index_select gather take take_along_dim masked_select roll flip rot90 movedim moveaxis
    swapaxes swapdims unfold to type type_as float double half bfloat16 cpu cuda detach adjoint T mT
    """.split()
)
CONCATENATIONS = frozenset("cat concat concatenate stack hstack vstack dstack".split())


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
        """Return the name of the next call of the module at ``path``.

        It is the path, then with ``_dup1``, then with ``_dup2``.
        """
        name, repeat = path, 0
        while name in self._given or (repeat and name in self._reserved):
            repeat += 1
            name = f"{path}_dup{repeat}"
        self._given.add(name)
        return name

    def for_node(self, node_name: str) -> str:
        """Return a name for a function, method or placeholder node.

        It is the node's own unless a module has it.
        """
        name = node_name
        while name in self._given or name in self._reserved:
            name += "_call"
        self._given.add(name)
        return name

    def for_function(self, inside: str, word: str) -> str:
        """Return the name of the next call of a function in a ``forward``.

        It is ``add``, then ``add_1``.

        Args:
            inside: the module's path; empty for the network itself.
            word: what the function is called. Like torch.fx, a word that Python has taken starts at ``pow_1``.
        """
        stem, number = f"{inside}.{word}" if inside else word, int(hasattr(builtins, word))
        name = f"{stem}_{number}" if number else stem
        while name in self._given or name in self._reserved:
            number += 1
            name = f"{stem}_{number}"
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
