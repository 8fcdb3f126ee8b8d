"""Killed at a file operation, a command goes on to the same bytes of every file, and nothing else stays."""

from pathlib import Path

import pytest

from tests.safety.kills import killed_then_resumed, prepared, whole

PLACES = {"rank": 9, "policy": 3, "export": 2, "train": 6, "study": 2}
"""How many operations of each are tried here, evenly spread; ``python -m tests.safety.kills`` tries all."""


@pytest.mark.parametrize("name", PLACES)
def test_killed_it_goes_on_to_the_same_bytes(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HESSRANK_SAVE_SECONDS", "0")
    monkeypatch.setattr("sys.argv", ["hessrank"])
    begin = prepared(name, tmp_path / "begin")
    expected, count = whole(name, begin, tmp_path / "whole")
    assert count > PLACES[name]
    for i in range(PLACES[name]):
        at = 1 + round(i * (count - 1) / (PLACES[name] - 1))
        status, found = killed_then_resumed(name, begin, tmp_path / str(at), at=at)
        assert status == -9, at
        assert found.keys() == expected.keys(), at
        assert found == expected, at
