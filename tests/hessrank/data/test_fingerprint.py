"""Checksums of data: the same for the same samples, another for any difference."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hessrank.data.fingerprint import digest_files, digest_samples
from hessrank.errors import DataError


def test_values_types_shapes_names_and_order_count() -> None:
    one, two = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])
    others = ([two, one], [one], [one, two.double()], [one, two[:, None]], [(one,), two], [{"x": one}, two])
    digests = {digest_samples(samples, source="x.pt") for samples in ([one, two], *others)}
    assert len(digests) == 1 + len(others)
    assert digest_samples([one.clone(), two], source="y.pt") in digests


def test_nan_is_refused_with_its_place() -> None:
    with pytest.raises(DataError, match=r"^x\.pt: sample 1 of 'y' holds NaN or infinity$"):
        digest_samples([{"y": torch.zeros(2)}, {"y": torch.tensor([0.0, float("nan")])}], source="x.pt")


def test_names_and_bytes_of_files_count_and_their_folder_does_not(tmp_path: Path) -> None:
    def write(folder: str, name: str, content: bytes) -> Path:
        path = tmp_path / folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        return path

    first = digest_files([write("a", "x.png", b"1")])
    assert digest_files([write("b", "x.png", b"1")]) == first
    assert digest_files([write("b", "y.png", b"1")]) != first
    assert digest_files([write("b", "x.png", b"2")]) != first
