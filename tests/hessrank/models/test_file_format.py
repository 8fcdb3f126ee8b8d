"""Formats are found by content."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from hessrank.errors import LoadError
from hessrank.models.file_format import Format, check_header, detect_format


def test_the_content_decides_not_the_name(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    for old in (True, False):
        torch.save({"w": torch.zeros(1)}, path, _use_new_zipfile_serialization=not old)
        assert detect_format(path) is Format.TORCH
    save_file({"w": torch.zeros(1)}, path)
    assert detect_format(path) is Format.SAFETENSORS
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/archive_format", "pt2")
    assert detect_format(path) is Format.EXPORTED


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "the file is empty"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        (b"\x00\x00\x00\x00TFL3", "a TensorFlow Lite model"),
        (b"GGUF", "a GGUF model"),
        (b"\x1f\x8b\x08", "compressed with gzip"),
        (b"\x93NUMPY", "a NumPy array"),
        (b"version https://git-lfs", "a Git LFS pointer"),
        (b"\x80\x04K\x01.", "a plain Python pickle"),
        (b"\x08\x08\x12\x07pytorch", "an ONNX model"),
        (b"\n<!DOCTYPE html>", "an HTML page"),
        ("größer".encode(), "a text file"),
        (b"\xff\x00\xff\x00", "not a model file that hessrank knows"),
    ],
)
def test_what_cannot_be_loaded_is_named(content: bytes, what: str, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    path.write_bytes(content)
    with pytest.raises(LoadError, match=what):
        detect_format(path)


def test_a_header_that_is_longer_than_any_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"w": torch.zeros(1)}, path)
    check_header(path, error=LoadError)
    with path.open("wb") as file:
        file.write((50_000_000).to_bytes(8, "little") + b"{")
        file.truncate(60_000_000)
    with pytest.raises(LoadError, match=str(path)):
        check_header(path, error=LoadError)
