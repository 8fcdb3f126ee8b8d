"""How far a ranking is: in words, as one share of the whole."""

import re
from functools import partial

import pytest

from hessrank.cli.terminal import ranking_progress
from hessrank.cli.terminal.ranking_progress import describe, reporter, share_done
from hessrank.terminal import terminal


def test_the_stages_of_a_ranking_are_one_share_that_grows() -> None:
    stages = ("ranges", "probes", "increases", "checked", "measured")
    steps = [(stage, done, 8) for stage in stages for done in range(9)]
    shares = [share_done(*step) for step in steps]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0.0, 1.0)
    assert share_done("verify", 4, 8) == 0.5


def test_stages_are_told_in_words() -> None:
    assert describe("increases", 3, 9) == "predicting the increases of the loss 3/9"
    assert describe("a new one", 3, 9) == "a new one 3/9"


def test_a_terminal_has_one_bar_over_all(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(ranking_progress, "terminal", partial(terminal, force_terminal=True, width=120))
    with reporter() as report:
        for stage in ("ranges", "probes", "later", "increases"):
            report(stage, 1, 2)
    shown = capsys.readouterr().err
    last = shown.split("\r")
    assert "predicting the increases of the loss 1/2" in shown
    assert "75%" in shown
    assert all(len(re.findall(r"\d+%", line)) <= 1 for line in last)


def test_elsewhere_there_are_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("HESSRANK_PROGRESS_SECONDS", "0")
    with reporter() as report:
        report("probes", 1, 64)
    assert capsys.readouterr().err.startswith("estimating the traces, probes 1/64, ")
