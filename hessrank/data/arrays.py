"""Gives the rows of arrays as samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from hessrank.data.data_source import Sample, fields_of
from hessrank.errors import DataError
from hessrank.models.tensors import why_unusable
from hessrank.text import shape_text

Column = np.ndarray[Any, Any] | Tensor
Columns = Column | tuple[Column, ...] | dict[str, Column]


class ArraySamples:
    """The first samples of one array, of several by position, or of several by name.

    Values keep their type (a uint8 array gives uint8 samples, a float64 array float64 ones) and are copied
    only when they are asked for, so an array may be mapped from a file.
    """

    def __init__(self, columns: Columns, *, source: str, num_samples: int | None = None) -> None:
        """Check the arrays and take the first ``num_samples`` of them.

        Args:
            columns: arrays N×…, NumPy's or torch's.
            source: where they are from, for error messages.
            num_samples: how many samples to take; None, or more than there are, takes all.

        Raises:
            DataError: there is no array or no sample, an array is a scalar or not of numbers, or the first
                dimensions differ.
        """
        self._columns = columns
        available = _count_samples(columns, source)
        self._count_samples = available if num_samples is None else min(num_samples, available)

    def __len__(self) -> int:
        return self._count_samples

    def __getitem__(self, index: int) -> Sample:
        if not -self._count_samples <= index < self._count_samples:
            raise IndexError(f"sample {index} of {self._count_samples}")
        position = index % self._count_samples
        if isinstance(self._columns, dict):
            return {name: _take_row(column, position) for name, column in self._columns.items()}
        if isinstance(self._columns, tuple):
            return tuple(_take_row(column, position) for column in self._columns)
        return _take_row(self._columns, position)


def _take_row(column: Column, index: int) -> Tensor:
    if isinstance(column, Tensor):
        return column[index].clone()
    return torch.from_numpy(np.array(column[index], dtype=column.dtype.newbyteorder("=")))


def _count_samples(columns: Columns, source: str) -> int:
    """Return the number of samples, once every array is known to be usable."""
    named: list[tuple[str, Column]] = [(name or "the array", column) for name, column in fields_of(columns)]
    if not named:
        raise DataError(f"{source}: there are no arrays in it")
    for name, column in named:
        if reason := _why_unusable(column):
            raise DataError(f"{source}: {name} {reason}")
    lengths = {name: int(column.shape[0]) for name, column in named}
    if len(set(lengths.values())) > 1:
        each = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise DataError(f"{source}: the first dimension counts the samples and must be the same, but {each}")
    length = next(iter(lengths.values()))
    if length == 0:
        raise DataError(f"{source}: there are no samples in it (the first dimension is 0)")
    return length


def _why_unusable(column: Column) -> str:
    """Return why an array cannot be used, empty if it can."""
    if reason := _why_type_unusable(column):
        return reason
    if column.ndim == 0:
        return "is a scalar; its first dimension has to count the samples"
    if column.shape[0] and 0 in column.shape:
        return f"is {shape_text(tuple(column.shape))}, which holds no values"
    return ""


def _why_type_unusable(column: Column) -> str:
    """Return why the type of an array cannot be used; empty if it can."""
    if isinstance(column, Tensor):
        return why_unusable(column) or ("holds complex numbers; store real ones" if column.is_complex() else "")
    if column.dtype.kind == "O":
        return "holds Python objects, which are not read; store an array of numbers"
    if column.dtype.kind not in "biuf" or column.dtype.itemsize > 8:
        return f"is of type {column.dtype}; store booleans, integers or floats of at most 64 bits"
    return ""
