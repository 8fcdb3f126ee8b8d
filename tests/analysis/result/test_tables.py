"""The printed table: what it is sorted by, what has no room, bars, notes, names that look like markup."""

from __future__ import annotations

import re

import pandas as pd
import pytest
from helpers.hand_graphs import TWO_STAGES, ranking_of

from hessrank.analysis.result.compare import compare
from hessrank.analysis.result.ranking import Ranking
from hessrank.analysis.result.tables import as_table, as_text, note_lines, printed
from hessrank.analysis.verify.verification import COLUMNS, Verification

INCREASES = {"A.act": 1.0, "A.last": 0.5, "B.left": 0.25, "B.last": 0.04}
WIDTHS = [46, 60, 80, 100, 120, 200]
VALUES = {"trace": "1.00e+02", "mean_trace": "1.00e+01", "act_increase_b6": "6.25e-02", "numel": "1"}
HEADINGS = {
    "trace": "trace", "mean_trace": "mean_trace", "act_increase_b6": "increase", "numel": "numel", "sem": "sem",
}  # fmt: skip


def ranking(layers: dict[str, str] | None = None) -> Ranking:
    found = ranking_of(TWO_STAGES, INCREASES)
    frame = found.to_frame()
    frame["ci_low"], frame["ci_high"] = 0.9 * frame["trace"], 1.1 * frame["trace"]
    frame["mean_trace"] = frame["trace"] / 10
    frame["layer"] = frame["layer"].replace(layers or {})
    return Ranking(frame, found.info)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("by", HEADINGS)
def test_what_it_is_sorted_by_stands_behind_the_layer_at_any_width(by: str, width: int) -> None:
    text = as_text(ranking().sorted_by(by), 5, width)
    assert all(len(line) <= width for line in text.splitlines())
    heading = next(line for line in text.splitlines() if re.match(r" *rank +layer", line))
    after = re.match(r" *rank +layer +(.*)", heading)
    assert after is not None
    expected = "at 6 bits" if by == "act_increase_b6" else HEADINGS[by]
    assert after[1].startswith(expected)
    if by in VALUES:
        assert VALUES[by] in text


@pytest.mark.parametrize("width", WIDTHS)
def test_what_has_no_room_is_said(width: int) -> None:
    text = " ".join(as_text(ranking().sorted_by("act_increase_b6"), 5, width).split())
    dropped = re.search(r"no room at this width for: (.*) rank: place", text)
    names = dropped[1].split(", ") if dropped else []
    head = text[: text.index("──")]
    for name, shown in {"trace": "trace", "increase at 8 bits": "8 bits", "kind": "kind"}.items():
        assert (name in names) != (shown in head), name
    assert bool(names) == (width < 100)


def test_bars_are_as_long_as_the_values() -> None:
    lines = [line for line in as_text(ranking(), 4, 120).splitlines() if "·" in line or "█" in line]
    assert [line.count("█") for line in lines] == [10, 5, 2, 0]
    assert {line.count("█") + line.count("·") for line in lines} == {10}


def test_a_negative_value_has_no_bar() -> None:
    made = ranking()
    frame = made.to_frame()
    frame.loc[2, "trace"] = -1.0
    assert "negative" in as_text(Ranking(frame, made.info), 5, 120)


def test_notes_wrap_at_the_width_with_a_hanging_indent() -> None:
    lines = printed([], ["many words " * 12, "[bold]short[/bold] :warning:"], 50).splitlines()
    assert all(len(line) <= 50 for line in lines)
    assert [line[:6] for line in lines] == ["note: ", "      ", "      ", "note: "]
    assert " ".join(lines[0].split()[1:] + lines[1].split() + lines[2].split()) == ("many words " * 12).strip()
    assert lines[3] == "note: [bold]short[/bold] :warning:"
    assert note_lines([]).row_count == 0


def test_the_width_is_that_of_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for width in (70, 110):
        monkeypatch.setenv("COLUMNS", str(width))
        assert str(ranking()) == as_text(ranking(), 20, width)


ODD = "blocks[red].x[/red] :smile:"


def test_names_are_no_markup() -> None:
    odd = ranking({"A.act": ODD})
    frame = odd.to_frame()
    assert ODD in as_text(odd, 5, 120)
    assert as_table(odd, 5, 120).row_count == 5
    moved = frame.copy()
    moved["trace"] = moved["trace"][::-1].to_numpy()
    for one, low in ((frame, 1), (moved, 9)):
        one["rank_low"] = one["rank_high"] = low
    assert ODD in str(compare(Ranking(frame, odd.info), Ranking(moved, odd.info)))
    row = dict.fromkeys(COLUMNS, 1.0) | {"layer": ODD, "kind": "x", "tensor": "weight", "bits": 4, "reason": ODD}
    assert str(Verification(pd.DataFrame([row])[list(COLUMNS)], [ODD])).count(ODD) >= 2


def test_a_notebooks_table_shows_what_it_is_sorted_by() -> None:
    html = ranking().sorted_by("act_increase_b6")._repr_html_()
    headings = re.findall(r"<th>(\w+)</th>", html)
    assert headings[headings.index("layer") + 1] == "act_increase_b6"
