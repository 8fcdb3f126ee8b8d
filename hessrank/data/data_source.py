"""A data source: samples by index, and a description of how they were made."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from hessrank.text import dtype_text

Sample = Tensor | tuple[Tensor, ...] | dict[str, Tensor]
"""One sample, without a batch dimension."""


@dataclass(frozen=True)
class Data:
    """Samples that were found under a name, and how they came to be.

    Attributes:
        dataset: a map-style data set, ``len()`` and ``[i]``, one sample of which is a tensor, a tuple or a
            dict of tensors without a batch dimension; a user's own loader may also be an iterable of batches.
        description: plain JSON values: ``kind``, ``path`` as it was given, ``sha256`` of the content that is
            used (None for a user's own loader), and where they apply ``num_samples``, ``shapes`` and
            ``dtypes`` of one sample, ``processing`` (a list of sentences), ``files``, ``gains``.
    """

    dataset: Any
    description: dict[str, Any]


def describe_sample(sample: Sample) -> dict[str, Any]:
    """Return ``shapes`` and ``dtypes`` of a sample, in its own structure.

    That is one value, a list, or values by name.
    """
    return {
        "shapes": _map_tensors(sample, lambda t: list(t.shape)),
        "dtypes": _map_tensors(sample, lambda t: dtype_text(t.dtype)),
    }


def _map_tensors(sample: Sample, of: Callable[[Tensor], Any]) -> Any:
    if isinstance(sample, dict):
        return {name: of(value) for name, value in sample.items()}
    return [of(value) for value in sample] if isinstance(sample, tuple) else of(sample)


def fields_of(sample: Any) -> Iterator[tuple[str, Any]]:
    """Yield the tensors of a sample, each with its name.

    The name is empty for a single one, else the position or the key.
    """
    if isinstance(sample, Mapping):
        yield from ((repr(name), value) for name, value in sample.items())
    elif isinstance(sample, tuple):
        yield from ((f"array {i}", value) for i, value in enumerate(sample))
    else:
        yield "", sample
