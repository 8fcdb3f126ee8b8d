"""A ranking as a table: on the terminal and in a notebook."""

from __future__ import annotations

import html
import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hessrank.files import written_whole

if TYPE_CHECKING:
    import pandas as pd

    from hessrank.analysis.ranking import Ranking

FLOATS = "%.9g"  # enough to tell two float32 numbers apart
_WIDE = 116
_BAR = 10  # characters for a bar over all decades


def as_table(ranking: Ranking, top: int | None = 20, width: int = 120) -> Table:
    """Return the first ``top`` layers (None: all) as a rich table; below 116 characters it has fewer columns."""
    frame = ranking.to_frame()
    increases = _shown_increases(list(frame.columns))[: 2 if width >= _WIDE else 1]
    shown = frame.head(top) if top else frame
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left", caption_justify="left")
    table.title = f"{len(frame)} layers by {ranking.by}, most sensitive first"
    table.add_column("rank", justify="right", no_wrap=True)
    table.add_column("layer", overflow="fold", min_width=min(36, int(shown["layer"].str.len().max())))
    if width >= _WIDE:
        table.add_column("kind", overflow="ellipsis", no_wrap=True)
    table.add_column("trace", justify="right", no_wrap=True)
    if width >= _WIDE:
        table.add_column("", no_wrap=True)
    for column in increases:
        bits = column.removeprefix("act_increase_b")
        table.add_column(f"loss + at\n{bits} bits", justify="right", no_wrap=True)
    for _, row in shown.iterrows():
        wide = [row["kind"]], [_bar(row["trace"], shown["trace"])]
        kind, bar = wide if width >= _WIDE else ([], [])
        numbers = [_number(row[column]) for column in increases]
        table.add_row(_rank(row), Text(row["layer"]), *kind, _trace(row), *bar, *numbers)
    left = len(frame) - len(shown)
    caption = [f"… and {left} more (--top {len(frame)} shows all)"] if left else []
    if detail := ranking.info.get("loss_detail"):
        caption.append(f"loss {ranking.info['loss']}: {detail}")
    caption.append("rank: place, and the places that are possible at 95 %; trace ± its 95 % interval")
    table.caption = "\n".join(caption)
    return table


def _shown_increases(columns: list[str]) -> list[str]:
    """Return the predicted increases worth a column: at 8 and 4 bits where known, else the two extremes."""
    known: list[str] = [c for c in columns if c.startswith("act_increase_b")]
    preferred: list[str] = [c for c in ("act_increase_b8", "act_increase_b4") if c in known]
    return preferred or known[-1:] + known[:1]


def _rank(row: pd.Series[Any]) -> str:
    low, high = row["rank_low"], row["rank_high"]
    place = str(row["rank"])
    return place if _missing(low) or low == high else f"{place} ({int(low)}–{int(high)})"


def _trace(row: pd.Series[Any]) -> str:
    half = (row["ci_high"] - row["ci_low"]) / 2
    if _missing(half) or not row["trace"]:
        return _number(row["trace"])
    return f"{_number(row['trace'])} ± {_percent(abs(half / row['trace']))}"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2g} %" if fraction < 9.95 else "over 10×"


def _number(value: float) -> str:
    return "" if _missing(value) else f"{value:.2e}"


def _missing(value: Any) -> bool:
    return not isinstance(value, int | float) or math.isnan(value)


def _bar(value: float, values: pd.Series[float]) -> Text:
    """Return a bar as long as ``value`` is above the smallest positive value, in decades."""
    positive = values[values > 0]
    if value <= 0 or positive.empty:
        return Text("negative", style="red") if value < 0 else Text("")
    span = math.log10(positive.max() / positive.min()) or 1.0
    filled = round(_BAR * math.log10(value / positive.min()) / span)
    return Text("█" * filled + "·" * (_BAR - filled), style="cyan")


def as_text(ranking: Ranking, top: int | None = 20, width: int = 120) -> str:
    """Return the table and the warnings as plain text."""
    return printed([as_table(ranking, top, width)], ranking.warnings, width)


def listed(names: Iterable[str]) -> str:
    """Return the first five names, and how many more there are."""
    ordered = list(names)
    return ", ".join(ordered[:5]) + (f" and {len(ordered) - 5} more" if len(ordered) > 5 else "")


def printed(tables: Sequence[Table], notes: Sequence[str], width: int = 120) -> str:
    """Return tables, and notes below them, as plain text."""
    console = Console(file=io.StringIO(), width=width, color_system=None)
    for table in tables:
        console.print(table)
    for note in notes:
        console.print(f"note: {note}")
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())


def write_csv(frame: pd.DataFrame, path: str | Path) -> None:
    """Write a table, whole or not at all.

    Raises:
        OutputError: the folder does not exist or cannot be written to.
    """
    with written_whole(Path(path)) as beside:
        frame.to_csv(beside, index=False, float_format=FLOATS, lineterminator="\n")


def as_html(ranking: Ranking, top: int = 20) -> str:
    """Return the table and the warnings for a notebook."""
    frame = ranking.to_frame()
    increases = _shown_increases(list(frame.columns))
    columns = [
        "rank",
        "rank_low",
        "rank_high",
        "layer",
        "kind",
        "shape",
        "trace",
        "ci_low",
        "ci_high",
        *increases,
    ]
    table = frame[columns].head(top).to_html(index=False, float_format=_number, border=0)
    more = f"<p>… and {len(frame) - top} more</p>" if len(frame) > top else ""
    notes = "".join(f"<li>{html.escape(w)}</li>" for w in ranking.warnings)
    heading = f"<p><b>{len(frame)} layers by {ranking.by}</b>, most sensitive first</p>"
    return f"{heading}{table}{more}" + (f"<ul>{notes}</ul>" if notes else "")
