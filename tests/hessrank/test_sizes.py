"""Sizes as people read them."""

import pytest

from hessrank.sizes import size_text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"), (1023, "1023 bytes"), (1024, "1.0 KiB"), (20_000, "19.5 KiB"), (2**20, "1.00 MiB"),
        (3.5 * 2**20, "3.50 MiB"), (5 * 2**30, "5.00 GiB"),
    ],
)  # fmt: skip
def test_the_unit_suits_the_size(count: float, text: str) -> None:
    assert size_text(count) == text
