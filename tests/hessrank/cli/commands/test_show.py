"""``hessrank show``: what the table is sorted by, notes at the terminal's width, how many layers a picture has."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.hand_graphs import TWO_STAGES, ranking_of
from PIL import Image

from hessrank.analysis.result.ranking import Ranking
from hessrank.cli import main

NOTE = "the samples of [this] ranking differ so much that more probes would not help at all"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    made = ranking_of(TWO_STAGES, {name: 0.5**i for i, name in enumerate(TWO_STAGES.nodes)})
    Ranking(made.to_frame(), made.info | {"warnings": [NOTE]}).to_csv("r.csv")
    return tmp_path


@pytest.mark.parametrize("width", [46, 80, 150])
def test_the_column_it_is_sorted_by_is_shown_and_notes_wrap(
    folder: Path, width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    assert main(["show", "r.csv", "--by", "act_increase_b10", "--top", "3"]) == 0
    shown = capsys.readouterr()
    assert "10 bits" in shown.out
    assert f"{4.0**-6:.2e}" in shown.out
    assert all(len(line) <= width for line in shown.out.splitlines() + shown.err.splitlines())
    lines = shown.err.splitlines()
    assert lines[0].startswith("note: ")
    assert all(line.startswith("      ") for line in lines[1:])
    assert " ".join(shown.err.split()) == f"note: {NOTE}"


def test_a_picture_has_as_many_layers_as_are_asked_for(folder: Path) -> None:
    heights = []
    for count in (2, 5, 1000):
        assert main(["show", "r.csv", "--plot", "p.png", "--plot-top", str(count)]) == 0
        with Image.open("p.png") as picture:
            heights.append(picture.size[1])
    assert heights[0] < heights[1] < heights[2]


@pytest.mark.parametrize("command", [["show"], ["policy"], ["compare", "r.csv"]], ids=" ".join)
@pytest.mark.parametrize("table", ["", ".", ".."])
def test_a_path_without_a_name_is_no_ranking(
    folder: Path, command: list[str], table: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, table]) == 2
    assert capsys.readouterr().err.endswith("this is a folder; give a file in it\n")


def test_no_layer_is_no_picture(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "r.csv", "--plot", "p.png", "--plot-top", "0"]) == 2
    assert "--plot-top" in capsys.readouterr().err
