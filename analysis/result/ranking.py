"""The ranking: a table of layers, most sensitive first, and its record."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from hessrank.analysis.result.ranking_record import TABLE_SHA256
from hessrank.analysis.result.ranking_table import list_number_columns, read_table
from hessrank.analysis.result.record_file import add_checksum, check_against, read_record, read_text, refuse_foreign
from hessrank.analysis.result.tables import FLOATS, as_html, as_text
from hessrank.errors import OutputError, unknown_name
from hessrank.files.atomic_write import written_whole
from hessrank.files.paths import readable_file, record_of, sha256_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes


_HALF = re.compile("[\ud800-\udfff]")  # of a letter: what a path that is no UTF-8 holds


class Ranking:
    """Layers ordered by sensitivity.

    A ranking prints as a table, has a notebook view, and reads and writes files.

    ``len(ranking)``, ``ranking["conv1"]`` (a layer's row), ``for name in ranking`` (the order).
    """

    def __init__(self, frame: pd.DataFrame, info: dict[str, Any]) -> None:
        """Wrap a table and its record.

        Args:
            frame: one row a layer, columns as in ``ranking.csv``.
            info: what ``ranking.json`` holds, but for the table's checksum.
        """
        self._frame = frame
        self.info = info

    @property
    def by(self) -> str:
        """The column that the layers are ranked by."""
        return str(self.info.get("options", {}).get("by", "trace"))

    @property
    def warnings(self) -> list[str]:
        """What a reader should know before trusting the order, a sentence each."""
        return list(self.info.get("warnings", []))

    def __len__(self) -> int:
        return len(self._frame)

    def __iter__(self) -> Any:
        return iter(self._frame["layer"])

    def __getitem__(self, layer: str) -> pd.Series[Any]:
        """Return the row of one layer.

        Raises:
            UnknownNameError: there is no such layer; the nearest names are listed.
        """
        rows = self._frame[self._frame["layer"] == layer]
        if rows.empty:
            raise unknown_name("layer", layer, self)
        return rows.iloc[0]

    def __str__(self) -> str:
        return as_text(self)

    def _repr_html_(self) -> str:
        return as_html(self)

    def to_frame(self) -> pd.DataFrame:
        """Return a copy of the table.

        Traces are in units of the loss per squared activation, increases in units of the loss.
        """
        return self._frame.copy()

    def sorted_by(self, by: str) -> Ranking:
        """Return the same layers ordered by another column, the largest first.

        The new ranking has no rank intervals.

        Raises:
            UnknownNameError: there is no such column of numbers.
        """
        numbers = list_number_columns(self._frame)
        if by not in numbers:
            raise unknown_name("column to rank by", by, numbers)
        frame = self._frame.sort_values(by, ascending=False, kind="stable", ignore_index=True)
        frame["rank"] = range(1, len(frame) + 1)
        frame[["rank_low", "rank_high"]] = pd.NA
        return Ranking(frame, {**self.info, "options": {**self.info.get("options", {}), "by": by}})

    def to_csv(self, path: str | Path) -> None:
        """Write the table to ``path``, and the record beside it with the ending ``.json``.

        Each file is written whole or not at all.

        The record holds the table's checksum and appears first, so that reading notices if only one of them was
        written. A ranking without a record writes none.

        Raises:
            OutputError: the folder does not exist or cannot be written to, or in the place of the record lies a file
                that is none.
        """
        path = Path(path)
        if not self.info:
            with written_whole(path) as table:
                table.write_text(self._csv(), encoding="utf-8", newline="")
            return
        refuse_foreign(record_of(path))
        with written_whole(path) as table, written_whole(record_of(path)) as record:
            table.write_text(self._csv(), encoding="utf-8", newline="")
            text = json.dumps(add_checksum(self.info, self.sha256), indent=1, ensure_ascii=False) + "\n"
            record.write_text(_HALF.sub(lambda half: rf"\\u{ord(half[0]):04x}", text), encoding="utf-8")

    @property
    def sha256(self) -> str:
        """Checksum of the table as a file."""
        return hashlib.sha256(self._csv().encode()).hexdigest()

    def _csv(self) -> str:
        # Python's csv leaves a carriage return bare, which pandas and spreadsheets take for the end of a row
        bare = self._frame["layer"].str.contains("\r", regex=False).any()
        quoting: Literal[0, 1] = csv.QUOTE_ALL if bare else csv.QUOTE_MINIMAL
        return self._frame.to_csv(index=False, float_format=FLOATS, lineterminator="\n", quoting=quoting)

    @classmethod
    def read(cls, path: str | Path) -> Ranking:
        """Read what :meth:`to_csv` wrote; a missing record is no error.

        Raises:
            OutputError: there is no such file, it is no ranking, or the record beside it is another table's. The
                message names the line and the column, or the path of keys.
        """
        path = readable_file(path, error=OutputError)
        text = read_text(path)
        found = read_record(record_of(path))
        if found is None:
            return cls(read_table(text, path), {})
        (info, record), checksum = found, sha256_of(path)
        as_written = record.table_sha256 == checksum  # by us, whatever its layers are called
        frame = read_table(text, path, zero_bytes="\0" in text and as_written)
        if record.table_sha256 not in (None, checksum):
            raise OutputError(_explain_mismatch(path))
        in_order = frame.sort_values("execution_index")["layer"].tolist()
        check_against(record, in_order, list_number_columns(frame), record_of(path))
        return cls(frame, {key: value for key, value in info.items() if key != TABLE_SHA256})

    def plot(self, ax: Axes | None = None, *, top: int | None = 40) -> Axes:
        """Draw the first ``top`` layers (None: all) as bars; return the axes."""
        from hessrank.analysis.result.plots import plot_ranking  # noqa: PLC0415 - matplotlib takes a second to import

        return plot_ranking(self, ax, top=top)

    def plot_depth(self, ax: Axes | None = None) -> Axes:
        """Draw the layers along the order of execution; return the axes."""
        from hessrank.analysis.result.plots import plot_depth  # noqa: PLC0415

        return plot_depth(self, ax)


def _explain_mismatch(path: Path) -> str:
    """Return the message that a table and its record do not belong together."""
    record = record_of(path)
    problem = f"{path} and {record} do not belong together: the table's checksum is not the one in the record"
    if path.with_name(f"{path.name}.partial").exists():
        return f"{problem}; the ranking was interrupted here: run the same command again with --resume"
    return (
        f"{problem}; write both again with hessrank rank, or remove {record} if you changed the table yourself "
        "(without it there are no policies of this ranking, and hessrank verify has no ranges)"
    )
