"""Batches: samples stacked along dimension 0, as a model takes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.data import default_collate

from hessrank.data.forward_arguments import TARGET_NAMES, ForwardArguments, bind_arguments
from hessrank.data.samples import Samples
from hessrank.errors import DataError
from hessrank.text import dtype_text, first_line
from hessrank.user_code import explain_errors


@dataclass(frozen=True)
class Batch:
    """A few samples, stacked along dimension 0, as arguments of a model.

    The model is called as ``model(*args, **kwargs)``.

    Attributes:
        args: positional arguments of ``forward``.
        kwargs: arguments of ``forward`` by name.
        target: what the loss compares with; None when there is none.
        samples: index of each sample in the data set; its length is the batch size.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    target: Any = None
    samples: tuple[int, ...] = (0,)

    def __len__(self) -> int:
        return len(self.samples)

    def map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        """Return the batch with ``function`` applied to every tensor.

        The target's tensors are among them.
        """
        args, kwargs, target = tree_map(
            lambda leaf: function(leaf) if isinstance(leaf, Tensor) else leaf,
            (self.args, self.kwargs, self.target),
        )
        return Batch(args, kwargs, target, self.samples)


def make_batch(samples: Samples, indices: Sequence[int], model: nn.Module, *, needs_target: bool) -> Batch:
    """Stack the samples at ``indices`` and bind them to ``model.forward``.

    Args:
        samples: where they come from.
        indices: which ones; the batch size is their number.
        model: whose ``forward`` decides what is an argument and what the target.
        needs_target: whether the loss has to have a target.

    Raises:
        DataError: samples of different shapes, or fields that do not fit ``forward``.
    """
    with explain_errors(f"reading samples {list(indices)}", DataError):
        rows = [samples[index] for index in indices]
    try:
        fields = default_collate(rows)
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise DataError(f"samples {list(indices)} do not stack into a batch: {first_line(error)}") from error
    batch = bind_fields(fields, model, needs_target=needs_target)
    if needs_target and batch.target is None:
        raise DataError("this loss needs a target: let the data hold (inputs, target), or rank with --loss self")
    return replace(batch, samples=tuple(indices))


def bind_fields(fields: Any, model: nn.Module, *, needs_target: bool) -> Batch:
    """Bind the fields of a batch to the arguments of ``model.forward``.

    Args:
        fields: a tensor, a tuple or list, or a dict of them, samples along dimension 0.
        model: whose ``forward`` decides what is an argument and what the target.
        needs_target: whether the last field is the target where ``forward`` could do with or without it.

    Returns:
        the batch; its target is None where there is none, its samples are numbered from 0.

    Raises:
        DataError: fields that do not fit ``forward``.
    """
    args, kwargs, target = bind_arguments(fields, model, needs_target=needs_target)
    sizes = [leaf.shape[0] for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor) and leaf.ndim]
    return Batch(args, kwargs, target, tuple(range(sizes[0] if sizes else 1)))


def naming_remedy(batch: Batch, model: nn.Module) -> str:
    """Return how to name the arrays that ``forward`` got as one dict.

    It is the end of a message; empty for any other batch.
    """
    if len(batch.args) != 1 or not isinstance(batch.args[0], Mapping):
        return ""
    wanted, given = ", ".join(ForwardArguments.of(model).names), ", ".join(map(repr, batch.args[0]))
    return (
        f"; forward({wanted}) was given one dict of {given}: call its arguments so to have them apart, and labels "
        f"{TARGET_NAMES[1]!r}"
    )


def single_samples(batch: Batch) -> list[Batch]:
    """Return the samples of ``batch`` as batches of one."""

    def only(index: int) -> Batch:
        alone = batch.map(lambda tensor: tensor[index : index + 1] if tensor.ndim else tensor)
        return replace(alone, samples=(batch.samples[index],))

    return [only(index) for index in range(len(batch))]


def describe(batch: Batch) -> str:
    """Return the inputs' shapes and types for messages, ``float32 1×3×64×64``."""
    leaves = [leaf for leaf in tree_leaves((batch.args, batch.kwargs)) if isinstance(leaf, Tensor)]
    return ", ".join(f"{dtype_text(t.dtype)} {'×'.join(map(str, t.shape))}" for t in leaves)
