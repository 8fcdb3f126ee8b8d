"""A call on a walk through a network: its name, its input, its value.

There are two walks, through a torch.fx graph (:mod:`fx_walk`) and by module hooks (:mod:`hook_walk`).
Both visit every floating-point tensor that a call yields, in the order of execution, and go on with what
the visitor returns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn
from torch.utils._pytree import keystr, tree_flatten, tree_flatten_with_path, tree_leaves, tree_unflatten

from hessrank.data.batch import Batch


@dataclass(frozen=True)
class Call:
    """One call on the way through a network.

    Attributes:
        name: the layer's name.
        kind: class of the module or name of the function.
        path: dotted path of the module called; None for functions and inputs.
        module: that module.
        input: the first positional tensor it was given; None if there was none.
        from_data: whether its value depends on the data at all (a constant is no activation).
        from_weights: whether a parameter had a part in it.
    """

    name: str
    kind: str
    path: str | None
    module: nn.Module | None
    input: Tensor | None
    from_data: bool = True
    from_weights: bool = False


Visit = Callable[[Call, Tensor], Tensor]


class Walk(Protocol):
    """Runs the network once on a batch and shows every value to ``visit``."""

    def __call__(self, batch: Batch, visit: Visit) -> Any:
        """Run the network and return its output."""
        ...


def visit_tensor(call: Call, value: Any, visit: Visit) -> Any:
    """Show a floating-point tensor to ``visit``; return what to go on with."""
    if isinstance(value, Tensor) and value.is_floating_point():
        return visit(call, value)
    return value


def first_tensor(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """Return the first tensor among a call's arguments: what a convolution convolves."""
    if args and isinstance(args[0], Tensor):
        return args[0]  # nearly always, and quick
    return next((leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)), None)


def visit_nest(value: Any, call_at: Callable[[str], Call], visit: Visit) -> Any:
    """Visit the floating-point tensors in nested tuples and dicts.

    It returns the nest with what they became.
    """
    values, spec = tree_flatten(value)
    floating = [i for i, leaf in enumerate(values) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
    places = _name_places(value, len(values)) if len(floating) > 1 else [""] * len(values)
    for i in floating:
        values[i] = visit(call_at(places[i]), values[i])
    return tree_unflatten(values, spec) if floating else value


def _name_places(value: Any, count: int) -> list[str]:
    """Return the place of each leaf: ``[0]``, ``['logits']``.

    It is a number in a class that cannot tell.
    """
    try:
        return [keystr(path) for path, _ in tree_flatten_with_path(value)[0]]
    except ValueError:
        return [f"[{i}]" for i in range(count)]
