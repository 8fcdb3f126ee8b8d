"""Tensors of files: what they claim, and which cannot be computed with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hessrank.errors import LoadError
from hessrank.models.tensors import check_tensors, why_unusable


@pytest.mark.parametrize(
    ("tensor", "why"),
    [
        (torch.zeros(1), ""),
        (torch.zeros(1, dtype=torch.bfloat16), ""),
        (torch.zeros(1, dtype=torch.int64), ""),
        (torch.zeros(1).to_sparse(), "sparse, nested or quantized"),
        (torch.zeros(1, device="meta"), "a meta tensor"),
        (torch.zeros(1, dtype=torch.float8_e4m3fn), "of type float8_e4m3fn; store it as float32"),
    ],
)
def test_why_a_tensor_cannot_be_computed_with(tensor: torch.Tensor, why: str) -> None:
    assert why in why_unusable(tensor)
    assert bool(why) == bool(why_unusable(tensor))


def test_a_value_that_is_repeated_beyond_all_bounds_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "small.pth"
    path.write_bytes(b"0" * 100)
    circle: list[object] = [torch.zeros(10)]
    circle.append(circle)
    check_tensors(path, circle, error=LoadError)
    with pytest.raises(LoadError, match="the tensors in it"):
        check_tensors(path, {"w": [torch.zeros(1).expand(2**40)]}, error=LoadError)
