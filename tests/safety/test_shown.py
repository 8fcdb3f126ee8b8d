"""Names from a file are shown as they are: on the terminal, in a notebook, in pictures, in tables."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.hand_graphs import TWO_STAGES, ranking_of
from matplotlib.axes import Axes
from rich.progress import Progress, TextColumn
from torch import nn

import hessrank
from hessrank.analysis.result.ranking import Ranking
from hessrank.analysis.verify.verification import COLUMNS, Verification
from hessrank.cli.print_results import print_ranking
from hessrank.distill.study.plots import plot_study
from hessrank.distill.study.table import markdown
from hessrank.distill.training.callbacks.pictures import draw_panels
from hessrank.distill.training.outputs.curves import plot_curves
from hessrank.drawing.figures import new_axes, plain_label
from hessrank.quant.bit_choice.allocation import plot_frontier
from hessrank.quant.plots import plot_bits, plot_increase
from hessrank.terminal import say, terminal
from hessrank.text import printable, visible

HOSTILE = {
    "escape": "a\x1b[2J\x1b]0;title\x07b",
    "C1": "a\x9b31mb",
    "closing bracket": "a[/x]b",
    "style": "[red]ab",
    "emoji": "a:smile:b",
    "bidirectional": "a\u202eb\u2066",
    "no width": "a\u200bb",
    "not UTF-8": "a\udcffb",
    "two lines": "a\nnote: b",
    "carriage return": "a\rb",
    "HTML": "<b onload=x>a&b",
    "formula": "$a$b{c$",
}


def harmless(text: str) -> bool:
    return visible(text) == text and text.isascii() <= text.isprintable() | ("\n" in text)


PRINTED = ("escape", "closing bracket", "not UTF-8", "two lines")


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_text_has_nothing_left_to_obey_and_keeps_its_letters(text: str) -> None:
    for found in (visible(text), printable(text)):
        assert all(letter.isprintable() or letter == "\n" for letter in found)
        found.encode()
        assert found[0] == text[0]
    assert "\n" not in printable(text)


def test_plain_text_stays_as_it_is() -> None:
    text = "größer × 3\u00a0%,\tÅ±½…\n  日本語 🙂"
    assert visible(text) == text


def hostile_ranking(name: str) -> Ranking:
    """A ranking whose first stage, kinds, column, loss and warnings are called so."""
    made = ranking_of(TWO_STAGES, {"A.act": 1.0, "A.last": 0.5, "B.last": 0.8})
    told = json.dumps(made.info).replace('"A.', json.dumps(name)[:-1] + ".")
    frame = made.to_frame()
    frame["layer"] = frame["layer"].str.replace("A.", f"{name}.", regex=False)
    frame["kind"] = name
    info = json.loads(told) | {"warnings": [name], "loss_detail": name, "loss": name}
    frame[name] = frame["trace"]
    return Ranking(frame, info | {"options": {"by": name}})


@pytest.mark.parametrize("name", [HOSTILE[kind] for kind in PRINTED], ids=PRINTED)
def test_a_ranking_is_printed_as_text(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    ranking = hostile_ranking(name)
    print_ranking(ranking, 20, [Path(name)])
    out, err = capsys.readouterr()
    lines = [line for text in (out, err, str(ranking)) for line in text.split("\n")]
    assert all(line.isprintable() for line in lines)
    first, last = visible(name).split("\n")[0], visible(name).split("\n")[-1]
    for text in (out, str(ranking)):
        assert f"{first}.act" in text or f"{last}.act" in text
    assert f"note: {first}" in err
    assert f"wrote {first}" in err


@pytest.mark.parametrize("name", [HOSTILE[kind] for kind in ("escape", "HTML")])
def test_a_notebook_shows_it_as_text(name: str) -> None:
    found = hostile_ranking(name)._repr_html_()
    assert all(line.isprintable() for line in found.split("\n"))
    assert "<b onload" not in found
    assert found.startswith('<div class="tex2jax_ignore mathjax_ignore">')


def test_control_codes_of_a_bar_are_the_terminals_own(capsys: pytest.CaptureFixture[str]) -> None:
    console = terminal(force_terminal=True, color_system=None)
    with Progress(TextColumn("{task.description}", markup=False), console=console) as bar:
        bar.add_task("a\x1b[2Jb[/x]")
    out = capsys.readouterr().out
    assert "a�[2Jb[/x" in out
    assert "\x1b" in out


def test_a_line_is_said_whatever_it_holds(capsys: pytest.CaptureFixture[str]) -> None:
    say("\n".join(HOSTILE.values()), err=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert all(line.isprintable() for line in err.split("\n"))


def _verification(name: str) -> Verification:
    row = dict.fromkeys(COLUMNS, 1.0) | {"layer": name, "kind": name, "tensor": "weight", "bits": 4, "reason": name}
    return Verification(pd.DataFrame([row, row | {"predicted": 2.0}])[list(COLUMNS)], [name])


def _comparison(name: str) -> hessrank.Comparison:  # type: ignore[name-defined]
    one = hostile_ranking(name)
    frame = one.to_frame()
    frame["trace"] = [1.0, 2.0, 80.0, *frame["trace"][3:]]
    return hessrank.compare(one, Ranking(frame, one.info))


def _study(name: str) -> pd.DataFrame:
    told = {
        "experiment": [name, "b"],
        "bops": 1.0,
        "size_mib": 1.0,
        f"before_{name}": 1.0,
        f"last_{name}": [2.0, 3.0],
    }
    return pd.DataFrame(told)


PLOTS: dict[str, Callable[[str], Any]] = {
    "ranking": lambda name: hostile_ranking(name).plot(),
    "depth": lambda name: hostile_ranking(name).plot_depth(),
    "compare": lambda name: _comparison(name).plot(),
    "verify": lambda name: _verification(name).plot(),
    "bits": lambda name: _bits(hostile_ranking(name)),
    "increases": lambda name: plot_increase(hostile_ranking(name)),
    "frontier": lambda name: plot_frontier(
        pd.DataFrame({name: [1.0, 2.0], "damage": [2.0, 1.0]}), marks={name: (1.0, 1.0)}
    ),
    "study": lambda name: plot_study(_study(name)),
    "curves": lambda name: plot_curves(
        pd.DataFrame({"epoch": [1, 2], "train/loss": 1.0, f"train/{name}": 1.0, f"val/{name}": 1.0}),
        {name: {name: 2.0}},
    ),
}


def _bits(ranking: Ranking) -> Axes:
    policy = hessrank.make_policy(ranking, "sensitive-ends", base_bits=4, high_bits=6, distill="none")
    return plot_bits(policy, ranking)


@pytest.mark.parametrize("plot", PLOTS)
def test_pictures_have_names_and_no_formulas(plot: str, tmp_path: Path) -> None:
    name = "_$A{$\x1b\n"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = PLOTS[plot](name)
        figure = figure.figure if isinstance(figure, Axes) else figure
        figure.savefig(tmp_path / "p.svg")
    drawn = (tmp_path / "p.svg").read_text()  # every text stands there as a comment
    assert "_$A{$�" in drawn


def test_nothing_that_a_logarithmic_axis_has_a_place_for_is_a_picture_too() -> None:
    one = hostile_ranking("a").to_frame()
    verified, ranking = _verification("a").to_frame(), Ranking(one.assign(trace=-1.0 - np.arange(len(one))), {})
    for found in (Verification(verified.assign(measured=-1.0), []), hessrank.compare(ranking, ranking)):
        found.plot().figure.savefig(BytesIO())


def test_panels_have_titles_and_no_formulas(tmp_path: Path) -> None:
    draw_panels([{"$a$b{c$": np.zeros((4, 4))}], tmp_path / "p.svg")
    assert "$a$b{c$" in (tmp_path / "p.svg").read_text()


def test_a_legend_shows_names_that_begin_with_an_underscore() -> None:
    ax = new_axes(2, 2)
    ax.plot([1, 2], label=plain_label("_a"))
    assert [text.get_text() for text in ax.legend().get_texts()] == [" _a"]


def test_a_studys_markdown_has_one_row_an_experiment() -> None:
    lines = markdown(_study("a|b\\\n<i>`*[x](y)")).splitlines()
    assert len(lines) == 4
    assert lines[2].startswith(r"| a\|b\\ \<i>\`\*\[x](y) | 1 |")


def test_names_that_a_spreadsheet_takes_for_formulas_are_noted() -> None:
    model = nn.Sequential()
    model.add_module("=1+1", nn.Linear(3, 3))
    model.add_module("fine", nn.Linear(3, 2))
    found = hessrank.rank(model, torch.randn(2, 3), max_probes=2, increase_probes=0)
    assert [note for note in found.warnings if "spreadsheet" in note] == [
        "'=1+1': a spreadsheet takes such a name for a formula: import the column as text"
    ]
