"""A network is as large as its file, or is not made."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from hessrank.errors import LoadError
from hessrank.files.size_limits import trusting_sizes
from hessrank.models.size_check import build_without_memory, limit_size


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "small.pth"
    path.write_bytes(b"0" * 100)
    return path


def test_a_layer_too_large_is_stopped_before_it_takes_memory(file: Path) -> None:
    with limit_size(file):
        nn.Linear(2, 2)
    with pytest.raises(LoadError, match="the network that it is for"), limit_size(file):
        build_without_memory(nn.Linear, {"in_features": 2**20, "out_features": 2**20})
    with limit_size(file), trusting_sizes(), torch.device("meta"):
        nn.Linear(2**20, 2**20)


def test_nothing_is_counted_after_the_block(file: Path) -> None:
    with pytest.raises(ValueError, match="left"), limit_size(file):
        raise ValueError("left")
    with torch.device("meta"):
        nn.Linear(2**20, 2**20)
