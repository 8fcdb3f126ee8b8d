"""A user's own data."""

from __future__ import annotations

from pathlib import Path

import pytest

from hessrank.data.loader_plugin import load_plugin
from hessrank.errors import DataError

CODE = """
samples = [1, 2]

def make():
    return samples

class Made(list):
    pass

def nothing():
    return 3

def broken():
    raise ValueError("no camera")

text = "samples"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(CODE)
    return path


def test_data_are_taken_and_what_makes_data_is_called(file: Path) -> None:
    assert load_plugin(f"{file}:samples").dataset == load_plugin(f"{file}:make").dataset == [1, 2]
    made = load_plugin(f"{file}:Made")
    assert made.dataset == []
    assert made.description["kind"] == "plug-in"
    assert made.description["sha256"] is None
    assert made.description["type"].endswith(".Made")


@pytest.mark.parametrize(
    ("name", "why"), [("nothing", "gives a int"), ("text", "gives a str"), ("broken", "no camera")]
)
def test_what_gives_no_data_is_refused(file: Path, name: str, why: str) -> None:
    with pytest.raises(DataError, match=why):
        load_plugin(f"{file}:{name}")
