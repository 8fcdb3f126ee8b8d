"""Arrays in files: what a sample is, and every way such a file can be wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from hessrank.data import load_data
from hessrank.data.samples import as_samples
from hessrank.errors import DataError
from hessrank.network.sample_batches import SampleBatches

VALUES = np.random.default_rng(0).normal(size=(5, 3, 4)).astype(np.float32)
TENSOR = torch.from_numpy(VALUES)


def refused(path, *words, **options):
    """Load what should be refused; return the message, one line that names the file and says ``words``."""
    with pytest.raises(DataError) as caught:
        load_data(str(path), **options)
    message = str(caught.value)
    assert "\n" not in message
    assert path.name in message
    for word in words:
        assert word in message
    return message


def problem(path):
    """Return what is wrong with a file, nothing if it can be read: some bytes (a date) do not matter."""
    try:
        load_data(str(path))
    except DataError as error:
        return str(error)
    return ""


def save(path, content):
    """Write ``content`` in the format that the suffix names."""
    if path.suffix == ".npy":
        np.save(path, content)
    elif path.suffix == ".npz":
        np.savez(path, **content)
    elif path.suffix == ".safetensors":
        save_file({name: torch.from_numpy(array) for name, array in content.items()}, path)
    else:
        torch.save(content, path)
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.npy", VALUES),
        ("x.npz", {"image": VALUES}),
        ("x.safetensors", {"image": VALUES}),
        ("x.pt", TENSOR),
        ("x.pth", torch.nn.Parameter(TENSOR)),
    ],
)
def test_one_array_gives_tensors(tmp_path, name, content):
    data = load_data(str(save(tmp_path / name, content)))
    assert len(data.dataset) == 5
    for index, row in enumerate(TENSOR):
        assert torch.equal(data.dataset[index], row)
        assert not data.dataset[index].requires_grad


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.npz", {"image": VALUES, "label": np.arange(5)}),
        ("x.safetensors", {"image": VALUES, "label": np.arange(5)}),
        ("x.pt", {"image": TENSOR, "label": torch.arange(5)}),
    ],
)
def test_named_arrays_give_dicts(tmp_path, name, content):
    sample = load_data(str(save(tmp_path / name, content))).dataset[3]
    assert set(sample) == {"image", "label"}
    assert torch.equal(sample["image"], TENSOR[3])
    assert sample["label"].item() == 3


@pytest.mark.parametrize("container", [tuple, list])
def test_tensors_in_order_give_tuples(tmp_path, container):
    path = save(tmp_path / "x.pt", container([TENSOR, torch.arange(5)]))
    image, label = load_data(str(path)).dataset[2]
    assert torch.equal(image, TENSOR[2])
    assert label.item() == 2


def test_arrays_saved_without_names_give_tuples(tmp_path):
    np.savez(tmp_path / "x.npz", VALUES, np.arange(5))
    image, label = load_data(str(tmp_path / "x.npz")).dataset[4]
    assert torch.equal(image, TENSOR[4])
    assert label.item() == 4


@pytest.mark.parametrize("dtype", ["uint8", "bool", "int64", "float16", "float64"])
def test_types_are_kept(tmp_path, dtype):
    data = load_data(str(save(tmp_path / "x.npy", np.ones((2, 3), dtype))))
    assert data.dataset[0].dtype == getattr(torch, dtype)


@pytest.mark.parametrize("layout", [np.asfortranarray, lambda a: a.astype(">f4")], ids=["fortran", "big-endian"])
def test_layout_does_not_matter(tmp_path, layout):
    assert torch.equal(load_data(str(save(tmp_path / "x.npy", layout(VALUES)))).dataset[1], TENSOR[1])


def test_num_samples_takes_the_first(tmp_path):
    data = load_data(str(save(tmp_path / "x.npy", VALUES)), num_samples=2)
    assert len(data.dataset) == data.description["num_samples"] == 2
    assert torch.equal(data.dataset[1], TENSOR[1])
    assert len(load_data(str(tmp_path / "x.npy"), num_samples=99).dataset) == 5


def test_description_is_json_and_follows_the_content(tmp_path):
    path = save(tmp_path / "x.npy", VALUES)
    described = load_data(str(path)).description
    assert json.loads(json.dumps(described)) == described
    assert described["path"] == str(path)
    assert described["shapes"] == [3, 4]
    assert described["sha256"] != load_data(str(save(path, VALUES + 1))).description["sha256"]


def test_nan_is_refused_unless_left_out(tmp_path):
    values = VALUES.copy()
    values[3, 0, 0] = np.nan
    path = save(tmp_path / "x.npy", values)
    refused(path, "NaN", "sample 3")
    assert len(load_data(str(path), num_samples=3).dataset) == 3


def test_nan_names_its_array(tmp_path):
    values = VALUES.copy()
    values[1] = np.nan
    refused(save(tmp_path / "x.npz", {"image": VALUES, "mask": values}), "sample 1", "mask")


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (np.float32(3), "scalar"),
        (VALUES[:0], "no samples"),
        (np.array([{}], dtype=object), "objects"),
        (np.array(["a"]), "<U1"),
        (np.zeros(3, [("a", "f4")]), "type"),
        (np.zeros(3, complex), "complex128"),
    ],
    ids=["scalar", "empty", "objects", "text", "records", "complex"],
)
def test_arrays_that_are_no_samples(tmp_path, content, word):
    refused(save(tmp_path / "x.npy", content), word)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"a": VALUES, "b": VALUES[:2]}, ("'a'", "5", "'b'", "2")),
        ({"a": VALUES, "b": np.float32(1)}, ("'b'", "scalar")),
        ({"a": VALUES, "b": np.array([{}], dtype=object)}, ("objects",)),
        ({}, ("no arrays",)),
    ],
    ids=["lengths", "scalar", "objects", "none"],
)
def test_archives_that_are_no_samples(tmp_path, content, words):
    refused(save(tmp_path / "x.npz", content), *words)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (3, ("int",)),
        ({"model": {}}, ("'model'", "dict")),
        ({}, ("no arrays",)),
        ((TENSOR, TENSOR[:2]), ("5", "2")),
        (torch.nn.Linear(2, 2), ("run code", "Linear")),
        (TENSOR.to_sparse(), ("sparse",)),
    ],
    ids=["number", "checkpoint", "none", "lengths", "pickle", "sparse"],
)
def test_torch_files_that_are_no_samples(tmp_path, content, words):
    refused(save(tmp_path / "x.pt", content), *words)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".pt", ".safetensors"])
@pytest.mark.parametrize("kept", ["nothing", "3 bytes", "60 bytes", "all but 9"])
def test_truncated_files(tmp_path, suffix, kept):
    content = {".npy": VALUES, ".pt": TENSOR}.get(suffix, {"a": VALUES})
    path = save(tmp_path / f"x{suffix}", content)
    whole = path.read_bytes()
    path.write_bytes(whole[: {"nothing": 0, "3 bytes": 3, "60 bytes": 60, "all but 9": len(whole) - 9}[kept]])
    refused(path)


def test_an_archive_of_something_else_is_refused(tmp_path):
    path = tmp_path / "x.npz"
    torch.save({"a": TENSOR}, path)  # a zip archive too
    assert "is no array; write the file with numpy.savez" in problem(path)


@pytest.mark.parametrize("compress", [np.savez, np.savez_compressed])
def test_any_damaged_byte_of_an_archive_is_one_line(tmp_path, compress):
    path = tmp_path / "x.npz"
    compress(path, a=VALUES)
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        assert "\n" not in problem(path)


def test_any_damaged_byte_of_an_array_is_one_line(tmp_path):
    path = save(tmp_path / "x.npy", VALUES[:1])
    whole = path.read_bytes()
    for place in range(128):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        assert "\n" not in problem(path)


def test_gain_is_for_raw_files(tmp_path):
    refused(save(tmp_path / "x.npy", VALUES), "RAW", gain=2.0)


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8", "bool"])
def test_token_numbers_stay_integers_up_to_the_network(tmp_path: Path, dtype: str) -> None:
    """Also where the network computes in float64."""
    np.savez(tmp_path / "tokens.npz", ids=np.zeros((2, 3), dtype=dtype), mask=np.ones((2, 3), dtype=dtype))

    class Takes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(4, 2, dtype=torch.float64)

        def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
            return self.words(ids)

    samples = as_samples(load_data(tmp_path / "tokens.npz"))
    batch = SampleBatches(samples, Takes(), 2, needs_target=False).batch(0, 1)
    assert {str(value.dtype) for value in batch.kwargs.values()} == {f"torch.{dtype}"}
