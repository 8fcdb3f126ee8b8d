"""Finds the format of a model file by its content."""

from __future__ import annotations

import re
import zipfile
from enum import Enum
from pathlib import Path

from hessrank.errors import HessrankError, LoadError
from hessrank.files.size_limits import check_archive, check_contents
from hessrank.text import DOTS, listed


class Format(Enum):
    """The formats that can be loaded."""

    TORCH = "written by torch.save"
    SAFETENSORS = "safetensors"
    EXPORTED = "written by torch.export.save"


_LONGEST_HEADER = 100_000_000  # bytes: safetensors' own limit
_TORCH_MAGIC = bytes.fromhex("6cfc9c46f9206aa85019")  # 0x1950a86a20f9469cfc6c, pickled as a long integer
_STATE_DICT = "save its state_dict with torch.save and give the architecture with --arch"
_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (
        0,
        b"\x89HDF\r\n\x1a\n",
        f"an HDF5 file, as Keras writes; hessrank reads PyTorch models: port it, {_STATE_DICT}",
    ),
    (4, b"TFL3", "a TensorFlow Lite model; hessrank reads PyTorch models, give the network it was made from"),
    (0, b"GGUF", "a GGUF model; hessrank reads PyTorch models, give the safetensors it was made from"),
    (257, b"ustar", "a tar archive; unpack it and give the model file inside"),
    (0, b"\x1f\x8b", "compressed with gzip; unpack it and give the model file inside"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it and give the model file inside"),
    (0, b"\x93NUMPY", "a NumPy array, not a model; give it as --data"),
    (0, b"version https://git-lfs", "a Git LFS pointer, not the model itself; fetch it with 'git lfs pull'"),
    (
        0,
        b"\x80",
        f"a plain Python pickle, not written by torch.save; load it where it was made, {_STATE_DICT}",
    ),
)
_ONNX = re.compile(rb"\x08[\x03-\x1f][\x12\x1a\x22\x2a\x32\x3a\x42]")  # ir_version ≥ 3, then a field
_NO_MODEL = "not a model file that hessrank knows (torch.save, safetensors, torch.export .pt2)"


def detect_format(path: Path) -> Format:
    """Return the format of the file, whatever its name ends with.

    Raises:
        LoadError: it is empty, cut short, or of a format that cannot be ranked; the message says which and
            what to do.
    """
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        raise LoadError(f"{path}: the file is empty; copy or download it again")
    if head.startswith(b"PK\x03\x04"):
        check_archive(path, error=LoadError)
        return _detect_in_zip(path)
    if _TORCH_MAGIC in head[:32]:
        return Format.TORCH
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= _LONGEST_HEADER:
        return Format.SAFETENSORS
    raise LoadError(f"{path}: this is {_describe(head)}")


def check_header(path: Path, *, error: type[HessrankError]) -> None:
    """Refuse a safetensors file whose header takes minutes and gigabytes to read.

    Raises:
        HessrankError: (as ``error``) it is too long.
    """
    with path.open("rb") as file:
        check_contents(path, min(int.from_bytes(file.read(8), "little"), path.stat().st_size), error=error)


def _describe(head: bytes) -> str:
    for offset, magic, meaning in _MAGIC:
        if head[offset:].startswith(magic):
            return meaning
    if _ONNX.match(head):
        return "an ONNX model, which has no PyTorch modules to rank; give the network it was exported from"
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return "an HTML page, most likely a failed download; download the model again"
    if _is_text(head):
        return f"a text file, {_NO_MODEL}"
    return _NO_MODEL


def _is_text(head: bytes) -> bool:
    """Return whether a file starts as UTF-8 text does, without a NUL."""
    try:
        head[:-4].decode()  # a character may be cut at the end
    except UnicodeDecodeError:
        return False
    return b"\0" not in head


def _detect_in_zip(path: Path) -> Format:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:  # what zipfile raises
        raise LoadError(f"{path}: the file is cut short or damaged; copy or download it again") from error
    inner = {name.partition("/")[2] or name for name in names} | set(names)
    if {"archive_format", "serialized_exported_program.json"} & inner:
        return Format.EXPORTED
    if any(name.startswith("code/") for name in inner):
        raise LoadError(
            f"{path}: this is TorchScript, whose modules cannot be ranked; take "
            f"torch.jit.load(…).state_dict(), save it with torch.save, and give the architecture with --arch"
        )
    if "data.pkl" in inner:
        return Format.TORCH
    raise LoadError(f"{path}: this is {_describe_zip(names)}")


def _describe_zip(names: list[str]) -> str:
    if "model.weights.h5" in names:
        return f"a Keras model; hessrank reads PyTorch models: port it, {_STATE_DICT}"
    if names and all(name.endswith(".npy") for name in names):
        return "an archive of NumPy arrays, not a model; give it as --data"
    held = listed(map(repr, names), 3, DOTS) or "nothing"
    return f"a zip archive that holds {held}; unpack it and give the model file inside"
