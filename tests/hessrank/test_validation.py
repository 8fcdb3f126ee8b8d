"""What does not fit a model of a file is one line."""

from __future__ import annotations

import pytest

from hessrank.errors import LoadError
from hessrank.validation import Checksum, Count, Finite, Name, RecordPart, validate


class Facts(RecordPart):
    """Facts of a file."""

    count: Count
    mean: Finite = 0.0
    name: Name = "x"
    digest: Checksum = "0" * 64


def test_what_fits_is_read_and_foreign_keys_are_let_be() -> None:
    assert validate(Facts, {"count": 3, "other": 1}, source="x.json", error=LoadError) == Facts(count=3)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "x.json: count: is missing; rank again"),
        ({"count": 0}, "x.json: count: 0 is not 1 or more; rank again"),
        ({"count": "3"}, "x.json: count: '3' is not a whole number; rank again"),
        ({"count": 1, "mean": float("nan")}, "x.json: mean: nan is not a finite number; rank again"),
        ({"count": 1, "name": ""}, "x.json: name: '' is not a name: it is empty; rank again"),
        ({"count": 1, "digest": "f"}, r"x.json: digest: 'f' is not a checksum \(64 hexadecimal digits\); rank again"),
        (3, "x.json: 3 is not a mapping of keys to values; rank again"),
    ],
)
def test_what_does_not_fit_is_named(data: object, message: str) -> None:
    with pytest.raises(LoadError, match=f"^{message}$"):
        validate(Facts, data, source="x.json", error=LoadError, remedy="rank again")
