"""Gives samples by index from tensors, arrays, data sets and data loaders."""

from __future__ import annotations

from collections.abc import Mapping, Sized
from itertools import islice
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten
from torch.utils.data import IterableDataset

from hessrank.bounds import check_whole
from hessrank.data.data_source import Data
from hessrank.errors import DataError
from hessrank.text import first_line
from hessrank.user_code import explain_errors


class Samples(Protocol):
    """Samples by index; one is a tensor, a tuple or a dict of tensors.

    None has a batch dimension.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


class TensorColumns:
    """Tensors with the samples along dimension 0, in nested tuples and dicts."""

    def __init__(self, columns: Any) -> None:
        leaves, self._spec = tree_flatten(columns)
        try:
            self._leaves = [torch.as_tensor(leaf) for leaf in leaves]
        except (RuntimeError, TypeError, ValueError) as error:
            raise DataError(f"the data holds something that is no tensor: {first_line(error)}") from error
        lengths = sorted({leaf.shape[0] if leaf.ndim else 0 for leaf in self._leaves})
        if not self._leaves or lengths[0] == 0:
            raise DataError("no data: give tensors whose first dimension counts the samples, one sample at least")
        if len(lengths) > 1:
            raise DataError(f"the tensors hold different numbers of samples: {', '.join(map(str, lengths))}")
        self._length = lengths[0]

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int, /) -> Any:
        return tree_unflatten([leaf[index] for leaf in self._leaves], self._spec)


class FirstSamples:
    """The first samples of a longer sequence."""

    def __init__(self, samples: Samples, length: int) -> None:
        self._samples, self._length = samples, length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int, /) -> Any:
        return self._samples[index]


def as_samples(data: Any, num_samples: int | None = None) -> Samples:
    """Return tensors, a data set or a data loader as samples by index.

    Args:
        data: a tensor or array (N×…), a tuple or dict of them, a dataset (a list of samples is one), or any
            iterable of batches such as a data loader, of which the first ``num_samples`` are kept.
        num_samples: how many to take from the front; None takes all.

    Raises:
        DataError: there is no sample, or the tensors disagree on how many there are.
    """
    with explain_errors("the data", DataError):
        return _as_samples(data, num_samples)


def _as_samples(data: Any, num_samples: int | None) -> Samples:
    samples: Any
    data = data.dataset if isinstance(data, Data) else data
    if num_samples is not None:
        check_whole("num_samples", num_samples, least=1, error=DataError)
    if isinstance(data, Tensor | np.ndarray | tuple | Mapping):
        samples = TensorColumns(data)
    elif hasattr(data, "__getitem__") and isinstance(data, Sized) and not isinstance(data, IterableDataset):
        samples = data
    elif hasattr(data, "__iter__"):
        with torch.random.fork_rng(devices=[]):  # a data loader draws a seed when its iteration starts
            batches = (TensorColumns(tuple(batch) if isinstance(batch, list) else batch) for batch in data)
            one_by_one = (columns[index] for columns in batches for index in range(len(columns)))
            samples = list(islice(data if isinstance(data, IterableDataset) else one_by_one, num_samples))
    else:
        raise DataError(f"no data in a {type(data).__name__}: give tensors, a dataset or a data loader")
    available = len(samples)
    if available == 0:
        raise DataError("no data: the data set is empty")
    return samples if num_samples is None else FirstSamples(samples, min(num_samples, available))
