"""Shows a ranking as a table on the terminal and in a notebook."""

from __future__ import annotations

import html
import io
import math
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich import box
from rich.console import JustifyMethod
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from hessrank.files.atomic_write import written_whole
from hessrank.terminal import plain_text, terminal
from hessrank.text import visible

if TYPE_CHECKING:
    import pandas as pd

    from hessrank.analysis.result.ranked_layers import RankedLayers

FLOATS = "%.9g"  # enough to tell two float32 numbers apart
_BAR = 10  # characters for the largest value
_LAYER = 36  # characters that a name may have before it is folded for the sake of another column
_LEAST = 6  # the same for the sake of the column that sorts
_NO_FORMULAS = "tex2jax_ignore mathjax_ignore"  # for a notebook, what stands between $ is one
_MEASURED = "*"  # stands before an increase that was measured
_INCREASE = re.compile(r"(act|weight)_increase_b(\d+)")


@dataclass(frozen=True)
class TableColumn:
    """A column of the printed table.

    ``name`` is what the caption calls it when there is no room.
    """

    heading: str
    cells: list[Text]
    name: str
    justify: JustifyMethod = "right"


def as_table(ranking: RankedLayers, top: int | None = 20, width: int = 120) -> Table:
    """Return the first ``top`` layers (None: all) as a rich table.

    The column that the layers are sorted by is shown at any width; the caption names the columns that have no room.
    """
    frame = ranking.to_frame()
    shown = frame.head(top) if top else frame
    names = [str(name) for name in shown["layer"]]
    needed = min(_LAYER, max(map(len, names)))
    text_of = _format_trace if ranking.by in ("trace", "mean_trace") else _format_value
    cells = [Text(text_of(row, ranking.by)) for _, row in shown.iterrows()]
    columns, optional = (
        [TableColumn(_make_heading(ranking.by), cells, ranking.by)],
        _make_optional_columns(shown, ranking.by),
    )
    while optional and _measure_other_columns(shown, [*columns, optional[0]]) + needed <= width:
        columns.append(optional.pop(0))
    least = max(_LEAST, width - _measure_other_columns(shown, columns))
    table = _make_table(shown, names, columns, min(least, max(map(len, names))))
    table.title = plain_text(f"{len(frame)} layers by {ranking.by}, most sensitive first", "table.title")
    caption = []
    if left := len(frame) - len(shown):
        caption.append(f"… and {left} more (--top {len(frame)} shows all)")
    if optional:
        caption.append(f"no room at this width for: {', '.join(column.name for column in optional)}")
    if detail := ranking.info.get("loss_detail"):
        caption.append(f"loss {ranking.info['loss']}: {detail}")
    caption.append("rank: place, and the places that are possible at 95 %; trace ± its 95 % interval")
    if any(_MEASURED in cell.plain for column in columns for cell in column.cells):
        caption.append(f"{_MEASURED} measured: so few bits round most of the tensor to 0")
    table.caption = plain_text("\n".join(caption), "table.caption")
    return table


def _make_table(shown: pd.DataFrame, names: Sequence[str], columns: Sequence[TableColumn], name_width: int) -> Table:
    """Return a table of ranks, names and ``columns``.

    Names longer than ``name_width`` are folded.
    """
    table = plain_table()
    table.add_column("rank", justify="right", no_wrap=True)
    table.add_column("layer" if name_width else "", overflow="fold", min_width=name_width)
    for column in columns:
        table.add_column(plain_text(column.heading), justify=column.justify, no_wrap=True)
    for index, (name, (_, row)) in enumerate(zip(names, shown.iterrows(), strict=True)):
        table.add_row(Text(format_rank(row)), plain_text(name), *(column.cells[index] for column in columns))
    return table


def _measure_other_columns(shown: pd.DataFrame, columns: Sequence[TableColumn]) -> int:
    """Return the width of the table without the names, in characters."""
    console = terminal(width=10**4)
    return Measurement.get(console, console.options, _make_table(shown, [""] * len(shown), columns, 0)).maximum


def _make_optional_columns(shown: pd.DataFrame, by: str) -> list[TableColumn]:
    """Return the other columns, the most useful first."""
    rows = [row for _, row in shown.iterrows()]
    columns = [TableColumn("", [_draw_bar(row[by], shown[by]) for row in rows], "bars", "left")]
    if by != "trace":
        columns.append(TableColumn("trace", [Text(_format_trace(row, "trace")) for row in rows], "trace"))
    for increase in _choose_increases(list(shown.columns)):
        if increase != by:
            heading = _make_heading(increase)
            cells = [Text(_format_value(row, increase)) for row in rows]
            columns.append(TableColumn(heading, cells, heading.replace("\n", " ")))
    return [*columns, TableColumn("kind", [plain_text(row["kind"]) for row in rows], "kind", "left")]


def _make_heading(column: str) -> str:
    """Return the heading of a column."""
    found = _INCREASE.fullmatch(column)
    if not found:
        return column
    return f"increase\nat {found[2]} bits" + (" (weight)" if found[1] == "weight" else "")


def _choose_increases(columns: list[str]) -> list[str]:
    """Return the columns of increases to show: 8 and 4 bits, or the two extremes."""
    known: list[str] = [c for c in columns if c.startswith("act_increase_b")]
    preferred: list[str] = [c for c in ("act_increase_b8", "act_increase_b4") if c in known]
    return preferred or known[-1:] + known[:1]


def format_rank(row: pd.Series[Any]) -> str:
    """Return a layer's rank and, where several are possible, all: ``4 (4–5)``."""
    low, high = row["rank_low"], row["rank_high"]
    place = str(row["rank"])
    return place if _is_missing(low) or low == high else f"{place} ({int(low)}–{int(high)})"


def _format_trace(row: pd.Series[Any], column: str) -> str:
    """Return a trace, or its mean over the elements, with its interval in percent."""
    half = (row["ci_high"] - row["ci_low"]) / 2
    if _is_missing(half) or not row["trace"]:
        return _format_number(row[column])
    share = abs(half / row["trace"])
    return f"{_format_number(row[column])} ± " + (f"{100 * share:.2g} %" if share < 9.95 else "over 10×")


def _format_value(row: pd.Series[Any], column: str) -> str:
    """Return a number of the table, with a mark if it is a measured increase."""
    found = _INCREASE.fullmatch(column)
    marked = found is not None and found[2] in str(row.get(f"{found[1]}_measured", "")).split()
    return f"{_MEASURED if marked else ''}{_format_number(row[column])}"


def _format_number(value: Any) -> str:
    if _is_missing(value):
        return ""
    return f"{value}" if isinstance(value, int | np.integer) else f"{value:.2e}"


def _is_missing(value: Any) -> bool:
    return not isinstance(value, int | float | np.integer) or math.isnan(value)


def _draw_bar(value: float, values: pd.Series[float]) -> Text:
    """Return a bar whose length is proportional to the value."""
    if value < 0:
        return Text("negative", style="red")
    if _is_missing(value) or not values.max() > 0:
        return Text("")
    filled = round(_BAR * (1.0 if value == values.max() else value / values.max()))  # infinite by infinite is none
    return Text("█" * filled + "·" * (_BAR - filled), style="cyan")


def plain_table(title: str = "") -> Table:
    """Return an empty table in hessrank's style; write names as ``plain_text``."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left", caption_justify="left")
    table.title = plain_text(title, "table.title") if title else None
    return table


def note_lines(notes: Iterable[str]) -> Table:
    """Return notes, each wrapped at the console's width with a hanging indent."""
    lines = Table.grid(padding=(0, 1, 0, 0))
    lines.add_column(no_wrap=True)
    lines.add_column(overflow="fold")
    for note in notes:
        lines.add_row("note:", plain_text(note))
    return lines


def as_text(ranking: RankedLayers, top: int | None = 20, width: int | None = None) -> str:
    """Return the table and the warnings as plain text.

    ``width`` is that of the terminal, or 120 without one, if it is None.
    """
    width = width or terminal_width()
    return printed([as_table(ranking, top, width)], ranking.warnings, width)


def terminal_width() -> int:
    """Return how many characters a line of the terminal has; 120 where there is none."""
    return shutil.get_terminal_size((120, 24)).columns


def printed(tables: Sequence[Table], notes: Sequence[str], width: int | None = None) -> str:
    """Return tables and, below them, notes as plain text.

    ``width`` is that of the terminal, or 120 without one, if it is None.
    """
    console = terminal(file=io.StringIO(), width=width or terminal_width(), color_system=None)
    for table in tables:
        console.print(table)
    if notes:
        console.print(note_lines(notes))
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())


def write_csv(frame: pd.DataFrame, path: str | Path) -> None:
    """Write a table, whole or not at all.

    Raises:
        OutputError: the folder does not exist or cannot be written to.
    """
    with written_whole(Path(path)) as beside:
        frame.to_csv(beside, index=False, float_format=FLOATS, lineterminator="\n")


def as_html(ranking: RankedLayers, top: int = 20) -> str:
    """Return the table and the warnings as HTML, in which names are plain text."""
    frame = ranking.to_frame()
    names = ["rank", "rank_low", "rank_high", "layer", ranking.by, "kind", "shape", "trace", "ci_low", "ci_high"]
    columns = list(dict.fromkeys([*names, *_choose_increases(list(frame.columns))]))
    table = frame[columns].head(top).to_html(index=False, float_format=_format_number, border=0)
    more = f"<p>… and {len(frame) - top} more</p>" if len(frame) > top else ""
    notes = "".join(f"<li>{html.escape(w)}</li>" for w in ranking.warnings)
    heading = f"<p><b>{len(frame)} layers by {html.escape(ranking.by)}</b>, most sensitive first</p>"
    found = f"{heading}{table}{more}" + (f"<ul>{notes}</ul>" if notes else "")
    return f'<div class="{_NO_FORMULAS}">{visible(found)}</div>'
