"""A sample's fields."""

from __future__ import annotations

import torch

from hessrank.data.data_source import describe_sample, fields_of

IMAGE, LABEL = torch.zeros(3, 4, 4), torch.tensor(1)


def test_a_sample_is_described_in_its_own_structure() -> None:
    assert describe_sample(IMAGE) == {"shapes": [3, 4, 4], "dtypes": "float32"}
    assert describe_sample((IMAGE, LABEL)) == {"shapes": [[3, 4, 4], []], "dtypes": ["float32", "int64"]}
    assert describe_sample({"x": LABEL}) == {"shapes": {"x": []}, "dtypes": {"x": "int64"}}


def test_fields_are_called_by_key_or_place() -> None:
    assert [name for name, _ in fields_of({"x": IMAGE, "y": LABEL})] == ["'x'", "'y'"]
    assert [name for name, _ in fields_of((IMAGE, LABEL))] == ["array 0", "array 1"]
    assert [name for name, _ in fields_of(IMAGE)] == [""]
