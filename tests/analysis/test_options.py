"""What a ranking may be asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from hessrank.analysis.options import Options
from hessrank.errors import OptionError, UnknownNameError

GOOD = Options(
    by="trace", batch_size=1, max_probes=64, tolerance=0.1, seed=0, bits=(4, 8), weights=True, increase_probes=256,
    precision="32",
)  # fmt: skip


def test_the_column_says_the_bits_to_rank_by() -> None:
    assert GOOD.by_bits == 0
    assert replace(GOOD, by="act_increase_b8").by_bits == 8


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("by", "act_increase_b5"),
        ("batch_size", 0),
        ("max_probes", 0),
        ("tolerance", 0.0),
        ("tolerance", 1.0),
        ("tolerance", float("nan")),
        ("seed", -1),
        ("bits", ()),
        ("bits", (1,)),
        ("bits", (17,)),
        ("increase_probes", -1),
        ("precision", "8"),
    ],
)
def test_what_makes_no_sense_is_refused(option: str, value: Any) -> None:
    with pytest.raises((OptionError, UnknownNameError)):
        replace(GOOD, **{option: value})
