"""Reads a ranking's table: the columns of ``ranking.csv``, and their values."""

from __future__ import annotations

import csv
import io
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from hessrank.errors import OutputError, nearest_first
from hessrank.text import brief, one_line

COLUMNS = (
    "rank",
    "layer",
    "kind",
    "execution_index",
    "shape",
    "numel",
    "macs",
    "trace",
    "sem",
    "ci_low",
    "ci_high",
    "rank_low",
    "rank_high",
    "mean_trace",
    "weight_trace",
    "weight_sem",
    "estimator",
    "probed_at",
    "num_probes",
    "num_samples",
    "converged",
    "act_measured",
    "weight_measured",
)
SINCE = {"probed_at": "0.4.0", "act_measured": "0.5.0", "weight_measured": "0.5.0"}
"""Columns that older rankings lack: they are read as empty."""
INCREASE = re.compile(r"(act|weight)_increase_b([2-9]|1[0-6])")
"""Name of a column of increases: of which tensor, at how many bits."""

_REMEDY = "write it again with hessrank rank"
_WHOLE = re.compile(r"[0-9]{1,18}")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,4})?")
_LARGEST = 1e150  # of any number: its square is finite too
_SIDE = r"[0-9]{1,18}(-[0-9]{1,18})?"
_SHAPE = re.compile(rf"{_SIDE}(x{_SIDE})*")
_TRUTH = {"True": True, "TRUE": True, "true": True, "False": False, "FALSE": False, "false": False}

Cell = Callable[[str], Any]


def read_table(text: str, path: Path, *, zero_bytes: bool = False) -> pd.DataFrame:
    """Return the table that a file holds, a row a layer, in the order of the ranks.

    Args:
        text: what the file holds.
        path: its name, for messages.
        zero_bytes: whether it may hold some: a file that is no text does.

    Raises:
        OutputError: a column is missing or unknown, or a cell holds what it cannot; line and column are named.
    """
    if "\0" in text and not zero_bytes:
        raise OutputError(f"{path}:{text[: text.index(chr(0))].count(chr(10)) + 1}: holds a zero byte: not a ranking")
    lines = _read_lines(text, path)
    _, header = next(lines, (1, []))
    _check_header(header, path)
    places, rows = [], []
    for line, cells in lines:
        if len(cells) != len(header):
            raise OutputError(f"{path}:{line}: {len(cells)} cells, but {len(header)} columns; {_REMEDY}")
        places.append(line)
        rows.append(cells)
    if not rows:
        raise OutputError(f"{path}: incomplete, there is no layer in it; {_REMEDY}")
    columns = zip(header, zip(*rows, strict=True), strict=True)
    frame = pd.DataFrame({name: _read_column(name, cells, places, path) for name, cells in columns})
    for name in SINCE.keys() - set(header):
        frame[name] = ""
    _check_rows(frame, places, path)
    return frame


def list_number_columns(frame: pd.DataFrame) -> list[str]:
    """Return the names of the columns that hold numbers."""
    return [str(name) for name in frame.select_dtypes("number").columns]


def _read_lines(text: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that hold something, each with the line that it ends in."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for cells in reader:
            if cells:
                yield reader.line_num, cells
    except csv.Error as error:
        raise OutputError(f"{path}:{reader.line_num}: {one_line(error)}: not a ranking") from error


def _check_header(header: Sequence[str], path: Path) -> None:
    """Refuse a table without a ranking's columns, or with others."""
    for name in COLUMNS:
        if name not in header and name not in SINCE:
            raise OutputError(
                f"{path}: not a ranking: the column {name!r} is missing; hessrank rank writes a ranking"
            )
    widths: dict[str, list[str]] = {"act": [], "weight": []}
    for name in header:
        found = INCREASE.fullmatch(name)
        if found:
            widths[found[1]].append(found[2])
        elif name not in COLUMNS:
            near = nearest_first(name[:40], COLUMNS)[0]
            raise OutputError(f"{path}:1: {brief(name)} is no column of a ranking, nearest is {near!r}: remove it")
    twice = next((name for name, count in Counter(header).items() if count > 1), None)
    if twice is not None:
        raise OutputError(f"{path}:1: the column {twice!r} is there twice: keep one")
    if sorted(widths["act"]) != sorted(widths["weight"]):
        odd = set(widths["act"]) ^ set(widths["weight"])
        raise OutputError(f"{path}:1: increases at {min(odd)} bits have one column, act or weight; {_REMEDY}")


def _check_rows(frame: pd.DataFrame, places: Sequence[int], path: Path) -> None:
    """Refuse rows that contradict each other, or themselves."""
    known = {found[2] for name in frame.columns if (found := INCREASE.fullmatch(str(name)))}

    def is_known(widths: str) -> bool:
        return known.issuperset(widths.split())

    rules = [
        ("rank", "is not the next one: ranks run 1, 2, 3 from row to row", frame["rank"] == frame.index + 1),
        ("layer", "is there twice", ~frame["layer"].duplicated()),
        ("execution_index", "is there twice", ~frame["execution_index"].duplicated()),
        ("trace", "does not lie between ci_low and ci_high", _is_between(frame, "ci_low", "trace", "ci_high")),
        (
            "rank_low",
            "is missing: all rows have intervals or none",
            frame["rank_low"].notna() | bool(frame["rank_low"].isna().all()),
        ),
        ("rank", "does not lie between rank_low and rank_high", _is_between(frame, "rank_low", "rank", "rank_high")),
        ("rank_high", f"is more than {len(frame)}, the number of rows", ~(frame["rank_high"] > len(frame))),
        *(
            (f"{kind}_measured", "has no column of increases", frame[f"{kind}_measured"].map(is_known))
            for kind in ("act", "weight")
        ),
    ]
    for name, problem, holds in rules:
        if not holds.all():
            place = int(holds.to_numpy().argmin())
            cell = brief(frame[name].tolist()[place])
            raise OutputError(f"{path}:{places[place]}: {name}: {cell} {problem}; {_REMEDY}")


def _is_between(frame: pd.DataFrame, low: str, middle: str, high: str) -> pd.Series[bool]:
    """Return where three columns are in order, or both ends are unknown."""
    ends = frame[[low, high]]
    return ((ends[low] <= frame[middle]) & (frame[middle] <= ends[high])) | ends.isna().all(axis=1)


def _read_column(name: str, cells: Sequence[str], places: Sequence[int], path: Path) -> list[Any]:
    """Return a column's values."""
    read = _INCREASE_CELL if INCREASE.fullmatch(name) else _CELLS[name]
    values = []
    for line, cell in zip(places, cells, strict=True):
        try:
            values.append(read(cell))
        except ValueError as error:
            raise OutputError(f"{path}:{line}: {name}: {brief(cell)} {error}; {_REMEDY}") from error
    if read is _parse_amount and not all(isinstance(value, int) for value in values):
        return [float(value) for value in values]
    if read is _parse_rank and any(value is None for value in values):
        return [math.nan if value is None else float(value) for value in values]
    return values


def _parse_name(cell: str) -> str:
    if not cell:
        raise ValueError("is no name")
    return cell


def _parse_whole(cell: str) -> int:
    if not _WHOLE.fullmatch(cell):
        raise ValueError("is not a whole number")
    return int(cell)


def _parse_count(cell: str) -> int:
    if not _WHOLE.fullmatch(cell) or not int(cell):
        raise ValueError("is not a whole number of 1 or more")
    return int(cell)


def _parse_rank(cell: str) -> int | None:
    return _parse_count(cell) if cell else None


def _parse_finite(cell: str) -> float:
    value = float(cell) if _NUMBER.fullmatch(cell) else math.nan
    if not abs(value) <= _LARGEST:
        raise ValueError("is not a finite number")
    return value


def _parse_optional(cell: str) -> float:
    return _parse_finite(cell) if cell else math.nan


def _parse_sem(cell: str) -> float:
    value = _parse_optional(cell)
    if value < 0:
        raise ValueError("is negative")
    return value


def _parse_increase(cell: str) -> float:
    """Return an increase; infinite where a rounding breaks the network."""
    return math.inf if cell == "inf" else _parse_optional(cell)


def _parse_amount(cell: str) -> int | float:
    """Return elements or MACs: a mean over the samples."""
    if _WHOLE.fullmatch(cell):
        return int(cell)
    value = _parse_finite(cell)
    if value < 0:
        raise ValueError("is negative")
    return value


def _parse_shape(cell: str) -> str:
    if not _SHAPE.fullmatch(cell):
        raise ValueError("is not a shape, as 3x8x8 or 3x5-8")
    for side in cell.split("x"):
        low, _, high = side.partition("-")
        if high and int(low) >= int(high):
            raise ValueError(f"is not a shape: {side} does not run upwards")
    return cell


def _parse_bool(cell: str) -> bool:
    if cell not in _TRUTH:
        raise ValueError("is neither True nor False")
    return _TRUTH[cell]


def _parse_widths(cell: str) -> str:
    if cell and not all(INCREASE.fullmatch(f"act_increase_b{width}") for width in cell.split(" ")):
        raise ValueError("is not a list of bit-widths, as '4 6'")
    return cell


_INCREASE_CELL: Cell = _parse_increase
_CELLS: dict[str, Cell] = {
    "rank": _parse_count,
    "layer": _parse_name,
    "kind": _parse_name,
    "execution_index": _parse_whole,
    "shape": _parse_shape,
    "numel": _parse_amount,
    "macs": _parse_amount,
    "trace": _parse_finite,
    "sem": _parse_sem,
    "ci_low": _parse_optional,
    "ci_high": _parse_optional,
    "rank_low": _parse_rank,
    "rank_high": _parse_rank,
    "mean_trace": _parse_optional,
    "weight_trace": _parse_optional,
    "weight_sem": _parse_sem,
    "estimator": _parse_name,
    "probed_at": str,
    "num_probes": _parse_whole,
    "num_samples": _parse_count,
    "converged": _parse_bool,
    "act_measured": _parse_widths,
    "weight_measured": _parse_widths,
}
