"""Reads ``.npy``, ``.npz``, ``.pt``/``.pth``, ``.safetensors``; none can run code."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from torch import Tensor

from hessrank.data.arrays import Column, Columns
from hessrank.errors import DataError
from hessrank.files.size_limits import check_archive
from hessrank.models.file_format import check_header
from hessrank.models.pickles import TOO_LARGE, load_tensors, unsafe_names
from hessrank.models.tensors import check_tensors
from hessrank.out_of_memory import is_out_of_memory
from hessrank.text import one_line, printable


def read_columns(path: Path) -> Columns:
    """Return what the file holds: an array, a tuple of them, or a dict of them.

    Args:
        path: a file whose suffix is a key of `READERS`.

    Raises:
        DataError: the file is damaged, of another format than its name says, or holds something else.
    """
    return READERS[path.suffix.lower()](path)


def _read_npy(path: Path) -> Columns:
    with path.open("rb") as file:
        if file.read(6) != np.lib.format.MAGIC_PREFIX:
            raise DataError(f"{path}: this is not a NumPy array file, or cut short; write it with numpy.save")
    try:
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # NumPy parses the header as Python, and raises what that raises
        raise DataError(f"{path}: {_explain_numpy_error(error)}") from error
    return array


def _read_npz(path: Path) -> Columns:
    """Return one array, or several by name or by position.

    Position counts where ``numpy.savez`` was given no names (arr_0, …).
    """
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path}: this is not a whole NumPy archive; write it with numpy.savez")
    check_archive(path, error=DataError)
    try:
        _check_headers(path)
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (DataError, MemoryError):
        raise
    except Exception as error:  # of zipfile, zlib and NumPy
        raise DataError(f"{path}: {_explain_numpy_error(error)}") from error
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):  # NumPy gives a member's bytes
            raise DataError(f"{path}: {printable(name)} in it is no array; write the file with numpy.savez")
    positions = [f"arr_{i}" for i in range(len(arrays))]
    if len(arrays) > 1 and sorted(arrays) == sorted(positions):
        return tuple(arrays[name] for name in positions)
    return _unwrap_single(arrays)


def _check_headers(path: Path) -> None:
    """Refuse members that are shorter than their headers say.

    NumPy would take the memory first.

    Raises:
        DataError: saying which one.
    """
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            with archive.open(member) as file:
                if file.read(len(np.lib.format.MAGIC_PREFIX)) != np.lib.format.MAGIC_PREFIX:
                    continue  # no array: NumPy gives its bytes
                major = file.read(2)[0]
                read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
                shape, _, dtype = read(file)
            if math.prod(shape) * dtype.itemsize > member.file_size and not dtype.hasobject:
                name = printable(member.filename)
                raise DataError(f"{path}: the file is cut short or damaged: {name} holds less than its header says")


def _unwrap_single(arrays: Mapping[str, Column]) -> Columns:
    """Return the only array itself; return several arrays by name.

    The name of an only array says nothing that ``forward`` needs.
    """
    return next(iter(arrays.values())) if len(arrays) == 1 else dict(arrays)


def _explain_numpy_error(error: Exception) -> str:
    text = one_line(error)
    if "object" in text.lower():
        return "it holds Python objects, which are not read; store an array of numbers"
    return f"the file is cut short or damaged: {text}"


def _read_torch(path: Path) -> Columns:
    check_archive(path, error=DataError)
    try:
        held = load_tensors(path)
    except Exception as error:
        if needed := unsafe_names(path, error):
            raise DataError(
                f"{path}: reading this pickle would run code ({', '.join(needed[:4])}); "
                "store a tensor, or a tuple or dict of tensors"
            ) from error
        if is_out_of_memory(error):
            raise DataError(f"{path}: {TOO_LARGE}") from error
        raise DataError(f"{path}: the file is cut short, damaged or not written by torch.save") from error
    check_tensors(path, held, error=DataError)
    return _check_entries(held, path)


def _check_entries(held: object, path: Path) -> Columns:
    if isinstance(held, Tensor):
        return held.detach().resolve_neg()
    entries: dict[object, object]
    if isinstance(held, Mapping):
        entries = dict(held)
    elif isinstance(held, tuple | list):
        entries = dict(enumerate(held))
    else:
        raise DataError(f"{path}: it holds a {type(held).__name__}, not a tensor or a tuple or dict of tensors")
    for name, value in entries.items():
        if not isinstance(value, Tensor):
            raise DataError(
                f"{path}: its entry {printable(repr(name))} is of type {type(value).__name__}, not a tensor"
            )
    tensors = {
        str(name): value.detach().resolve_neg() for name, value in entries.items() if isinstance(value, Tensor)
    }
    if isinstance(held, Mapping):
        return dict(tensors)
    return tuple(tensors.values())


def _read_safetensors(path: Path) -> Columns:
    from safetensors.torch import load_file  # noqa: PLC0415  # not needed for the other formats

    check_header(path, error=DataError)
    try:
        return _unwrap_single(load_file(path))
    except Exception as error:  # SafetensorError derives from Exception alone
        raise DataError(f"{path}: the file is cut short, damaged or not safetensors: {one_line(error)}") from error


READERS: dict[str, Callable[[Path], Columns]] = {
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".pt": _read_torch,
    ".pth": _read_torch,
    ".safetensors": _read_safetensors,
}
