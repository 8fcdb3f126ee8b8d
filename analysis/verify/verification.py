"""The verification: predicted and measured increases, by tensor and bit-width."""

from __future__ import annotations

import html
import math
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from rich.table import Table

from hessrank.analysis.result.tables import plain_table, printed, write_csv
from hessrank.analysis.verify.agreement import PredictionAgreement, measure_agreement
from hessrank.terminal import plain_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = (
    "layer",
    "kind",
    "tensor",
    "bits",
    "predicted",
    "measured",
    "measured_sem",
    "ratio",
    "first_order",
    "second_order",
    "higher_order",
    "clipping",
    "reason",
)


class Verification:
    """Predicted and measured increases.

    A verification prints as a table, has a notebook view, writes CSV and draws a plot.
    """

    def __init__(self, frame: pd.DataFrame, notes: list[str]) -> None:
        """Wrap a table with :data:`COLUMNS`, and what a reader should know."""
        self._frame, self.notes = frame, notes

    def __len__(self) -> int:
        return len(self._frame)

    def __str__(self) -> str:
        return printed(self.tables(), self.notes)

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"

    def to_frame(self) -> pd.DataFrame:
        """Return a copy of the table; increases in units of the loss."""
        return self._frame.copy()

    def to_csv(self, path: str | Path) -> None:
        """Write the table, whole or not at all.

        Raises:
            OutputError: the folder does not exist or cannot be written to.
        """
        write_csv(self._frame, path)

    @property
    def agreement(self) -> list[PredictionAgreement]:
        """How well the order is predicted, for activations and weights and each bit-width."""
        frame = self._frame
        kinds = sorted(set(zip(frame["tensor"], frame["bits"], strict=True)))
        return [measure_agreement(t, int(b), frame[(frame["tensor"] == t) & (frame["bits"] == b)]) for t, b in kinds]

    def disagreeing(self) -> pd.DataFrame:
        """Return the rows that are off, the farthest first."""
        off = self._frame[self._frame["reason"] != ""]
        distance = off["ratio"].where(off["ratio"] > 0).map(lambda r: abs(math.log(r)) if r > 0 else math.inf)
        return off.loc[distance.fillna(math.inf).sort_values(ascending=False, kind="stable").index]

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw predicted against measured increases; return the axes."""
        from hessrank.analysis.verify.plots import plot_verification  # noqa: PLC0415 - matplotlib takes a second

        return plot_verification(self._frame, self.agreement, ax)

    def tables(self, top: int = 12) -> list[Table]:
        """Return the summary, and the first ``top`` rows that are off, as rich tables."""
        summary = plain_table("predicted against measured")
        for heading in ("tensor", "bits", "tensors", "Spearman, 95 % interval", "predicted / measured", "off"):
            summary.add_column(heading, justify="left" if heading == "tensor" else "right")
        for one in self.agreement:
            order = f"{one.spearman:.3f} ({one.low:.3f}–{one.high:.3f})" if one.count > 3 else ""
            summary.add_row(one.tensor, f"{one.bits}", f"{one.count}", order, f"{one.ratio:.2f}", f"{one.off}")
        off = self.disagreeing()
        if off.empty:
            return [summary]
        rows = plain_table(f"{len(off)} of {len(self)} off by more than a factor of 1.5")
        for heading in ("layer", "tensor", "bits", "predicted", "measured", "because"):
            rows.add_column(heading, justify="right" if heading in ("bits", "predicted", "measured") else "left")
        for _, row in off.head(top).iterrows():
            numbers = (f"{row['predicted']:.2e}", f"{row['measured']:.2e}")
            rows.add_row(
                plain_text(row["layer"]), row["tensor"], f"{row['bits']}", *numbers, plain_text(row["reason"])
            )
        if len(off) > top:
            rows.caption = f"… and {len(off) - top} more"
        return [summary, rows]
