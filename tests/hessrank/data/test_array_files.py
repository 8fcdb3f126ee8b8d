"""Files of arrays: what they hold, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from hessrank.data.array_files import READERS, read_columns
from hessrank.errors import DataError

X, Y = np.arange(6.0).reshape(3, 2), np.arange(3)


def test_one_array_is_itself_whatever_it_is_called(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", X)
    np.savez(tmp_path / "a.npz", some_name=X)
    torch.save(torch.from_numpy(X), tmp_path / "a.pt")
    save_file({"some_name": torch.from_numpy(X)}, tmp_path / "a.safetensors")
    for name in ("a.npy", "a.npz", "a.pt", "a.safetensors"):
        assert np.array_equal(np.asarray(read_columns(tmp_path / name)), X), name


def test_several_come_by_name_or_by_position(tmp_path: Path) -> None:
    np.savez(tmp_path / "named.npz", x=X, y=Y)
    np.savez(tmp_path / "placed.npz", X, Y)
    torch.save([torch.from_numpy(X), torch.from_numpy(Y)], tmp_path / "placed.pth")
    assert list(read_columns(tmp_path / "named.npz")) == ["x", "y"]
    for name in ("placed.npz", "placed.pth"):
        placed = read_columns(tmp_path / name)
        assert isinstance(placed, tuple)
        assert np.array_equal(np.asarray(placed[1]), Y), name


@pytest.mark.parametrize("suffix", READERS)
def test_what_is_cut_short_is_refused(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"\x93NUM")
    with pytest.raises(DataError, match=str(path)):
        read_columns(path)


def test_objects_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{}], dtype=object))
    torch.save({"x": 3}, tmp_path / "a.pt")
    with pytest.raises(DataError, match="holds Python objects"):
        read_columns(tmp_path / "a.npy")
    with pytest.raises(DataError, match="its entry 'x' is of type int, not a tensor"):
        read_columns(tmp_path / "a.pt")
