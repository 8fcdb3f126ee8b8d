"""Output and target of a loss, tensor by tensor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves

from hessrank.errors import LossError
from hessrank.network.outputs import output_tensors
from hessrank.network.padding import Padded
from hessrank.text import shapes_text


def pair_tensors(name: str, output: Any, target: Any) -> tuple[list[tuple[Tensor, Tensor]], Tensor | None]:
    """Return pairs of output and target tensors, and which positions count.

    The latter is None if all positions count.
    """
    target, real = split_padded(target)
    z = output_tensors(output)
    leaves = output_tensors(target) if isinstance(target, Mapping) else tree_leaves(target)
    t = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    t = [leaf for leaf in t if leaf.is_floating_point()] if len(t) > len(z) else t
    if [tuple(a.shape) for a in z] != [tuple(b.shape) for b in t]:
        raise LossError(
            f"loss {name!r}: the output is {shapes_text(z)} and the target {shapes_text(t)}; "
            "they should have equal shapes"
        )
    return list(zip(z, t, strict=True)), real


def split_padded(target: Any) -> tuple[Any, Tensor | None]:
    """Return a target, and which of its positions count; None if all do."""
    return (target.values, target.real) if isinstance(target, Padded) else (target, None)


def sum_by_sample(elements: Tensor) -> Tensor:
    """Return the sum over each sample's elements, shape (batch,)."""
    return elements.reshape(len(elements), -1).sum(1)
