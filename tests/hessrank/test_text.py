"""Text that is safe to show, and reads well."""

from __future__ import annotations

import pytest

from hessrank.text import joined


@pytest.mark.parametrize(
    ("names", "expected"),
    [(["head"], "head"), (["head", "tail"], "head or tail"), (["head", "middle", "tail"], "head, middle or tail")],
)
def test_a_choice_of_names_reads_as_one(names: list[str], expected: str) -> None:
    assert joined(names) == expected
