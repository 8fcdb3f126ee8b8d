"""Seconds out of the environment."""

from __future__ import annotations

import pytest

from hessrank.cli.environment import read_seconds
from hessrank.errors import OptionError


def test_a_number_counts_and_nothing_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PATIENCE", raising=False)
    assert read_seconds("PATIENCE", 60) == 60
    monkeypatch.setenv("PATIENCE", " 1.5 ")
    assert read_seconds("PATIENCE", 60) == 1.5


@pytest.mark.parametrize("text", ["soon", "-1", "nan"])
def test_what_is_no_time_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATIENCE", text)
    with pytest.raises(OptionError, match=f"PATIENCE='{text}': give seconds, a number from 0 up: PATIENCE=60"):
        read_seconds("PATIENCE", 60)
