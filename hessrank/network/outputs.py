"""Picks the tensors of a network's output that a loss compares.

A dict (Hugging Face's ``ModelOutput`` is one) tells what its tensors are. What stands beside the result does not
count: a loss that the network computed itself, the cache of a text generator, hidden states, attentions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

_BESIDE = frozenset(
    "loss cache past_key_values hidden_states attentions encoder_last_hidden_state mems states rnn_state".split()
)
_BESIDE_ENDS = ("_hidden_states", "_attentions", "_loss")


def named_outputs(output: Any) -> list[tuple[str, Tensor]]:
    """Return the output tensors that count, with their names in a dict.

    They are floating-point tensors, in order; the name is "" outside a dict.

    Bare scalars have no samples and do not count. What usually stands beside the result counts where there is
    nothing else.
    """
    if not (isinstance(output, Mapping) and all(isinstance(name, str) for name in output)):
        return [("", tensor) for tensor in _find_floating(output)]
    found = [(name, tensor) for name, value in output.items() for tensor in _find_floating(value)]
    result = [(name, t) for name, t in found if name not in _BESIDE and not name.endswith(_BESIDE_ENDS)]
    return result or found


def output_tensors(output: Any) -> list[Tensor]:
    """Return the tensors of :func:`named_outputs`."""
    return [tensor for _, tensor in named_outputs(output)]


def detach(output: Any, *, requires_grad: bool = False) -> Any:
    """Return ``output`` without the network's graph, each tensor a new leaf."""

    def cut(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        return leaf.detach().requires_grad_(requires_grad and leaf.is_floating_point())

    return tree_map(cut, output)


def may_be_logits(name: str, tensor: Tensor) -> bool:
    """Return whether an output may hold logits.

    It is B×C, or of any shape if it is called logits.

    Args:
        name: what it is called; "" if it has no name.
        tensor: the output.
    """
    if "logits" in name:
        return tensor.ndim >= 2 and tensor.shape[class_dim(tensor)] > 1
    features = any(word in name for word in ("pool", "state", "embed"))
    return tensor.ndim == 2 and tensor.shape[1] > 1 and not features


def class_dim(logits: Tensor) -> int:
    """Return the dimension of the classes: 2 in B×T×C, else 1.

    B×T×C is a language model's; 1 is torch's own.
    """
    return 2 if logits.ndim == 3 else 1


def _find_floating(value: Any) -> list[Tensor]:
    leaves = tree_leaves(value)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.ndim]
