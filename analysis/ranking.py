"""The result: a table of layers, most sensitive first, and the record of how it came about."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from hessrank.analysis.tables import FLOATS, as_html, as_text
from hessrank.errors import OutputError, unknown_name
from hessrank.files import written_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SCHEMA_VERSION = 3  # 2: the record holds the graph; 3: and its masks
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


_SINCE = {
    "probed_at": "0.4.0",
    "act_measured": "0.5.0",
    "weight_measured": "0.5.0",
}  # columns that older rankings lack
_NEVER_EMPTY = ("layer", "trace", "num_samples", "converged")


def _read_record(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OutputError(f"{path}: not the record of a ranking ({error}): delete it or write it again") from error
    return record


class Ranking:
    """Layers by sensitivity. Prints as a table, shows itself in a notebook, reads and writes files.

    ``len(ranking)``, ``ranking["conv1"]`` (a layer's row), ``for name in ranking`` (the order).
    """

    def __init__(self, frame: pd.DataFrame, info: dict[str, Any]) -> None:
        """Wrap a table and its record.

        Args:
            frame: one row a layer, columns as in ``ranking.csv``.
            info: what ``ranking.json`` holds.
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
        """Return a copy of the table: traces in loss units per squared activation, increases in loss units."""
        return self._frame.copy()

    def sorted_by(self, by: str) -> Ranking:
        """Return the same layers in the order of another column, the largest first, without rank intervals.

        Raises:
            UnknownNameError: there is no such column of numbers.
        """
        numbers = [str(c) for c in self._frame.select_dtypes("number").columns]
        if by not in numbers:
            raise unknown_name("column to rank by", by, numbers)
        frame = self._frame.sort_values(by, ascending=False, kind="stable", ignore_index=True)
        frame["rank"] = range(1, len(frame) + 1)
        frame[["rank_low", "rank_high"]] = pd.NA
        return Ranking(frame, {**self.info, "options": {**self.info.get("options", {}), "by": by}})

    def to_csv(self, path: str | Path) -> None:
        """Write ``path`` and, beside it, the record with the ending ``.json``; each whole or not at all.

        Raises:
            OutputError: the folder does not exist or cannot be written to.
        """
        path = Path(path)
        with written_whole(path) as table, written_whole(path.with_suffix(".json")) as record:
            table.write_text(self._csv(), encoding="utf-8", newline="")
            text = json.dumps(self.info, indent=1, ensure_ascii=False) + "\n"
            record.write_text(text, encoding="utf-8", errors="backslashreplace")  # paths that are no UTF-8

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
            OutputError: there is no such file, or it is no ranking.
        """
        path = Path(path)
        try:
            strings = {"layer": str} | dict.fromkeys(_SINCE, str)
            # a layer may be called "null"
            frame = pd.read_csv(path, dtype=strings, keep_default_na=False, na_values=[""])
        except FileNotFoundError as error:
            raise OutputError(f"{path}: there is no such file") from error
        except (OSError, ValueError) as error:
            raise OutputError(f"{path}: {str(error).splitlines()[0]}: not a ranking") from error
        for column in _SINCE.keys() - set(frame.columns):
            frame[column] = ""
        frame[list(_SINCE)] = frame[list(_SINCE)].fillna("")
        missing = [column for column in COLUMNS if column not in frame.columns]
        if missing:
            raise OutputError(
                f"{path}: not a ranking: the column {missing[0]!r} is missing; hessrank rank writes one"
            )
        info = _read_record(path.with_suffix(".json"))
        expected = info.get("layers", len(frame))
        if frame.empty or frame[list(_NEVER_EMPTY)].isna().any(axis=None) or len(frame) != expected:
            raise OutputError(f"{path}: incomplete ({len(frame)} rows): write it again with hessrank rank")
        return cls(frame, info)

    def plot(self, ax: Axes | None = None, *, top: int | None = 40) -> Axes:
        """Draw the first ``top`` layers (None: all) as bars, most sensitive on top; return the axes."""
        from hessrank.analysis.plots import plot_ranking  # noqa: PLC0415 - matplotlib takes a second to import

        return plot_ranking(self, ax, top=top)

    def plot_depth(self, ax: Axes | None = None) -> Axes:
        """Draw the layers along the order of execution; return the axes."""
        from hessrank.analysis.plots import plot_depth  # noqa: PLC0415

        return plot_depth(self, ax)
