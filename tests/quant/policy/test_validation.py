"""What does not fit is named with its place."""

from __future__ import annotations

import pytest

from hessrank.quant.policy.errors import PolicyError
from hessrank.quant.policy.fields import Keys
from hessrank.quant.policy.positions import FilePosition, FilePositions
from hessrank.quant.policy.validation import refuse_unknown_keys, validated


class Inner(Keys):
    name: str = ""


class Outer(Keys):
    count: int = 0
    inner: Inner = Inner()


PLACES = FilePositions(
    "x.yaml",
    {("count",): FilePosition(1, 1), ("inner", "nmae"): FilePosition(3, 3)},
    {
        ("count",): FilePosition(1, 8),
        ("inner",): FilePosition(2, 1),
        ("inner", "name"): FilePosition(3, 9),
        ("inner", "nmae"): FilePosition(3, 9),
    },
)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"count": "3"}, "x.yaml:1:8: count: '3' is not a whole number"),
        ({"inner": {"name": 3}}, "x.yaml:3:9: name: 3 is not a name; if it is one, put quotes around it: '3'"),
        ({"inner": {"nmae": "a"}}, "x.yaml:3:3: no key named 'nmae'; nearest is 'name'"),
        ({"inner": {"name": 3}, "count": "3"}, "x.yaml:1:8: count: '3' is not a whole number"),
    ],
)
def test_the_first_misfit_in_the_file_is_the_error(data: dict[str, object], message: str) -> None:
    with pytest.raises(PolicyError) as caught:
        validated(Outer, data, PLACES)
    assert str(caught.value) == message


def test_what_fits_is_read_and_foreign_keys_are_refused() -> None:
    assert validated(Outer, {"count": 3}, PLACES) == Outer(count=3)
    with pytest.raises(PolicyError, match=r"x\.yaml:1:1: no key named 'count'"):
        refuse_unknown_keys(["inner", "count"], ["inner"], PLACES)
