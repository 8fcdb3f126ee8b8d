"""A few of the bad inputs that a seed makes; ``python -m tests.safety.hostile`` makes as many as are wanted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.places import ROOT
from safety.hostile.cases import Case, make_case, numbers
from safety.hostile.checks import broken, snapshot
from safety.hostile.options import commands, options_of
from safety.hostile.recipes import RECIPES, SHARES
from safety.hostile.runner import BYTES, SECONDS, Ended

FILES = ("ranking.csv", "ranking.json", "second.csv", "second.json")
ARGUMENTS = ("compare", "ranking.csv", "second.csv", "--out", "new.csv")
CASE = Case("compare", 0, 0, ARGUMENTS, "spoil_text ranking.csv", ("ranking.csv",), FILES)
GOOD = "error: ranking.csv:3: a number is missing\n"


@pytest.mark.timeout(600)
def test_nothing_runs_nothing_is_lost_every_error_is_one_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.safety.hostile", "--cases", "100", "--jobs", "2"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "100 cases" in done.stdout


def test_every_command_and_every_option_has_its_turn() -> None:
    assert RECIPES.keys() == SHARES.keys() == {*commands(), "default"}
    assert {command for command, _ in numbers(100)} == RECIPES.keys()
    assert "--max-probes" in {name for option in options_of("default") for name in option.names}


def _tables(folder: Path) -> Path:
    folder.mkdir()
    for name in ("ranking", "second"):
        (folder / f"{name}.csv").write_text("rank,layer,trace\n1,conv,2.5\n2,head,0.5\n")
        (folder / f"{name}.json").write_text('{"seed": 0, "layers": ["conv", "head"]}')
    (folder / "occupied").mkdir()
    os.mkfifo(folder / "pipe.csv")
    for name in ("loop.csv", "null.csv"):
        (folder / name).symlink_to(name)
    return folder


def _content(folder: Path) -> dict[str, tuple[object, object]]:
    return {name: (state[0], state[-1]) for name, state in snapshot(folder).items()}


def test_a_case_is_always_the_same(tmp_path: Path) -> None:
    inputs, seen = _tables(tmp_path / "inputs"), set()
    for number in range(40):
        cases = []
        for turn in "ab":
            folder = tmp_path / f"{number}{turn}"
            folder.mkdir()
            cases.append((make_case("compare", 1, number, inputs, folder), _content(folder)))
        assert cases[0] == cases[1]
        seen.add(str(cases[0]))
    assert len(seen) > 30


@pytest.mark.parametrize(
    ("ended", "file", "problem"),
    [
        pytest.param(Ended(2, "", GOOD, 1, 1), None, None, id="good"),
        pytest.param(Ended(0, "table", "", 1, 1), "work/new.csv", None, id="an output that was asked for"),
        pytest.param(Ended(1, "", "Traceback (most recent call last)", 1, 1), None, "traceback", id="traceback"),
        pytest.param(Ended(2, "", "error: this is a bug", 1, 1), None, "traceback", id="a bug that is told"),
        pytest.param(Ended(-11, "", "", 1, 1), None, "exit status -11", id="killed"),
        pytest.param(Ended(1, "", GOOD, 1, 1), None, "exit status 1", id="1 is of check alone"),
        pytest.param(Ended(2, "", "oh", 1, 1), None, "0 lines of error", id="no error"),
        pytest.param(Ended(2, "", GOOD * 2, 1, 1), None, "2 lines of error", id="two errors"),
        pytest.param(Ended(2, "", "error: no", 1, 1), None, "names neither", id="no file named"),
        pytest.param(Ended(0, "", GOOD, 1, 1), None, "no exit status", id="an error and 0"),
        pytest.param(Ended(0, "\x1b[31m", "", 1, 1), None, "control characters", id="escapes"),
        pytest.param(Ended(2, "", GOOD, SECONDS + 1, 1), None, f"{SECONDS + 1} s", id="slow"),
        pytest.param(Ended(2, "", GOOD, 1, BYTES + 2**30), None, "3.0 GiB", id="large"),
        pytest.param(Ended(2, "", GOOD, 1, 1), "work/new.csv", "new file", id="output of a failure"),
        pytest.param(Ended(0, "", "", 1, 1), "work/new.csv.partial", "new file", id="partial"),
        pytest.param(Ended(0, "", "", 1, 1), "home/x", "new file", id="elsewhere"),
        pytest.param(Ended(0, "", "", 1, 1), "work/second.csv", "changed file", id="input"),
    ],
)
def test_what_does_not_hold_is_seen(tmp_path: Path, ended: Ended, file: str | None, problem: str | None) -> None:
    _tables(tmp_path / "work")
    (tmp_path / "home").mkdir()
    before = snapshot(tmp_path)
    if file is not None:
        (tmp_path / file).write_text("more")
    problems = broken(CASE, ended, before, snapshot(tmp_path))
    assert [problem in text for text in problems] == [True] if problem else not problems


def test_a_folder_or_file_that_is_gone_is_seen(tmp_path: Path) -> None:
    work = _tables(tmp_path / "work")
    before = snapshot(tmp_path)
    (work / "ranking.json").unlink()
    assert broken(CASE, Ended(0, "", "", 1, 1), before, snapshot(tmp_path)) == ["gone file: work/ranking.json"]
