"""Compares two rankings by their numbers and error bars.

Each trace is known with an error. So the rank correlation of what is printed is lower than the true one where layers
are close: noise shuffles neighbors. Adding the same noise once more shows how much it lowers the correlation and how
much it scatters it, which gives an interval for the true one; the layers that count as moved are those whose rank
intervals do not overlap.
"""

from __future__ import annotations

import html
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from rich.table import Table
from scipy.stats import kendalltau, rankdata

from hessrank.analysis.result.ranking import Ranking
from hessrank.analysis.result.tables import plain_table, printed, write_csv
from hessrank.analysis.statistics import Array
from hessrank.errors import ModelError, unknown_name
from hessrank.terminal import plain_text
from hessrank.text import listed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DRAWS = 500
_REACH = 2.5  # standard deviations: held the truth in 95 % or more of all simulated cases
_SIGMAS = 3.0  # of the difference of two traces, from when on it is none of noise's making

COLUMNS = (
    "layer", "rank_a", "rank_b", "rank_low_a", "rank_high_a", "rank_low_b", "rank_high_b",
    "value_a", "value_b", "sem_a", "sem_b", "ratio", "sigmas", "verdict",
)  # fmt: skip


@dataclass(frozen=True)
class Correlation:
    """A rank correlation of the estimates, and a 95 % interval for the true traces'."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f}–{self.high:.3f})"


class Comparison:
    """The comparison of two rankings.

    It prints as a table, has a notebook view, writes CSV and draws a plot.

    Attributes:
        by: the column that was compared.
        only_a: layers that only the first ranking has.
        only_b: layers that only the second has.
        swapped: pairs of layers whose order is certain in both rankings, and opposite.
    """

    def __init__(
        self, frame: pd.DataFrame, by: str, only: tuple[list[str], list[str]], swapped: list[tuple[str, str]]
    ) -> None:
        """Wrap a table with :data:`COLUMNS`."""
        self._frame, self.by, self.swapped = frame, by, swapped
        self.only_a, self.only_b = only

    def __len__(self) -> int:
        return len(self._frame)

    def __str__(self) -> str:
        return printed([self.table()], self.notes)

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"

    @cached_property
    def spearman(self) -> Correlation:
        """Spearman's rank correlation."""
        return self._correlation(_spearman)

    @cached_property
    def kendall(self) -> Correlation:
        """Kendall's τ: the share of pairs in the same order, less that of the others."""
        return self._correlation(_kendall)

    @property
    def notes(self) -> list[str]:
        """What a reader should know."""
        notes = []
        for which, names in (("first", self.only_a), ("second", self.only_b)):
            if names:
                notes.append(f"only the {which} ranking has {listed(names)}")
        return notes

    def to_frame(self) -> pd.DataFrame:
        """Return a copy of the table, in the order of the first ranking."""
        return self._frame.copy()

    def moved(self) -> pd.DataFrame:
        """Return the layers whose rank intervals do not overlap, the farthest first."""
        rows = self._frame[self._frame["verdict"] == "moved"]
        return rows.loc[(rows["rank_a"] - rows["rank_b"]).abs().sort_values(ascending=False, kind="stable").index]

    def to_csv(self, path: str | Path) -> None:
        """Write the table, whole or not at all.

        Raises:
            OutputError: the folder does not exist or cannot be written to.
        """
        write_csv(self._frame, path)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the values of one ranking against those of the other; return the axes."""
        from hessrank.analysis.result.compare_plot import plot_comparison  # noqa: PLC0415 - matplotlib takes a second

        return plot_comparison(self._frame, self.moved(), self.by, str(self.spearman), ax)

    def table(self, top: int = 20) -> Table:
        """Return the first ``top`` moved layers as a rich table.

        If no layer moved, the table only says so.
        """
        moved = self.moved()
        agreement = f"{len(self)} layers by {self.by}: Spearman {self.spearman}, Kendall {self.kendall}"
        if moved.empty and not self.swapped:
            made = Table(box=None, show_header=False, pad_edge=False, title_justify="left")
            made.add_column(min_width=len(agreement))
            made.title = f"{agreement}\nnothing moved: no layer beyond its error bars, no pair swapped for certain"
            return made
        made = plain_table(
            f"{agreement}\n"
            f"{len(moved)} layers moved beyond their error bars, {len(self.swapped)} pairs swapped for certain"
        )
        for heading in ("layer", "rank a", "rank b", "value a", "value b", "sigmas apart"):
            made.add_column(heading, justify="left" if heading == "layer" else "right")
        for _, row in moved.head(top).iterrows():
            places = (f"{row[f'rank_{x}']} ({row[f'rank_low_{x}']}–{row[f'rank_high_{x}']})" for x in "ab")
            made.add_row(
                plain_text(row["layer"]),
                *places,
                f"{row['value_a']:.2e}",
                f"{row['value_b']:.2e}",
                f"{row['sigmas']:.1f}",
            )
        if len(moved) > top:
            made.caption = f"… and {len(moved) - top} more"
        return made

    def _correlation(self, correlate: Callable[[Array, Array], Array]) -> Correlation:
        """Return a correlation, and an interval from noise that is added again.

        Noise lowers it by about as much the second time as the first, so the upper end is raised by that; where no
        two layers are swapped for certain, the true orders may be the same.
        """
        a, b = (self._frame[f"value_{x}"].to_numpy()[None] for x in "ab")
        value = float(correlate(a, b)[0]) if len(self) > 1 else float("nan")
        if len(self) < 3:
            return Correlation(value, value, value)
        rng = np.random.default_rng(0)
        noise = (rng.standard_normal((_DRAWS, len(self))) * self._frame[f"sem_{x}"].to_numpy() for x in "ab")
        drawn = correlate(a + next(noise), b + next(noise))
        reach, lost = _REACH * float(drawn.std()), max(0.0, value - float(drawn.mean()))
        low, high = np.quantile(drawn, [0.025, 0.975])
        most = max(float(high), value + 2 * lost + reach) if self.swapped else 1.0
        return Correlation(value, min(float(low), value - reach), min(1.0, most))


def _spearman(a: Array, b: Array) -> Array:
    """Return Spearman's correlation of each row of ``a`` with the same row of ``b``."""
    ranks = (rankdata(values, axis=1) for values in (a, b))
    one, other = (r - r.mean(1, keepdims=True) for r in ranks)
    return np.asarray((one * other).sum(1) / np.sqrt((one**2).sum(1) * (other**2).sum(1)))


def _kendall(a: Array, b: Array) -> Array:
    return np.array([float(kendalltau(one, other).statistic) for one, other in zip(a, b, strict=True)])


def compare(a: Ranking, b: Ranking, by: str = "trace") -> Comparison:
    """Compare two rankings of the same network.

    They may be of other data, another seed, another loss or another training.

    Args:
        a: one ranking.
        b: the other.
        by: ``trace`` or ``mean_trace``.

    Returns:
        the layers that both have, how well their orders agree, and which moved beyond their error bars.

    Raises:
        ModelError: they have no layer in common.
        UnknownNameError: ``by`` is another column.

    Example:
        Twice the weight behind two layers makes their traces four times as large; their order stays:

        >>> import torch
        >>> import hessrank
        >>> network = torch.nn.Sequential(torch.nn.Linear(2, 3, bias=False), torch.nn.Linear(3, 1, bias=False))
        >>> _ = [torch.nn.init.ones_(weight) for weight in network.parameters()]
        >>> before = hessrank.rank(network, torch.ones(4, 2))
        >>> _ = torch.nn.init.constant_(network[1].weight, 2.0)
        >>> comparison = hessrank.compare(before, hessrank.rank(network, torch.ones(4, 2)))
        >>> comparison.to_frame()["ratio"].round(4).tolist(), comparison.spearman.value
        ([0.25, 0.25, 1.0], 1.0)
    """
    if by not in ("trace", "mean_trace"):
        raise unknown_name("column to compare by", by, ["trace", "mean_trace"])
    first, second = (ranking.to_frame().set_index("layer") for ranking in (a, b))
    both = [name for name in first.index if name in second.index]
    if not both:
        raise ModelError(
            f"the rankings have no layer in common ({first.index[0]!r} and {second.index[0]!r} lead them)"
        )
    only = [n for n in first.index if n not in second.index], [n for n in second.index if n not in first.index]
    sides = {x: _order_side(f.loc[both], by) for x, f in (("a", first), ("b", second))}
    frame = pd.DataFrame({f"{column}_{x}": side[column] for x, side in sides.items() for column in side.columns})
    frame = frame.sort_values("rank_a").reset_index(names="layer")
    frame["ratio"] = frame["value_a"] / frame["value_b"].where(frame["value_b"] != 0)
    error = (frame["sem_a"] ** 2 + frame["sem_b"] ** 2) ** 0.5
    frame["sigmas"] = (frame["value_a"] - frame["value_b"]) / error.where(error > 0)
    moved = (frame["rank_low_a"] > frame["rank_high_b"]) | (frame["rank_low_b"] > frame["rank_high_a"])
    frame["verdict"] = np.where(moved, "moved", np.where(frame["sigmas"].abs() > _SIGMAS, "other size", ""))
    return Comparison(frame[list(COLUMNS)], by, only, _find_swapped(frame))


def _order_side(frame: pd.DataFrame, by: str) -> pd.DataFrame:
    """Return ranks among the common layers, rank intervals, values and errors."""
    scale = np.ones(len(frame)) if by == "trace" else 1 / frame["numel"].to_numpy()
    value, sem = frame["trace"].to_numpy() * scale, frame["sem"].fillna(0).to_numpy() * scale
    above = _is_certainly_above(value, sem)
    low, high = 1 + above.sum(0), len(value) - above.sum(1)
    order = np.empty(len(value), dtype=np.int64)
    order[np.argsort(-value, kind="stable")] = np.arange(1, len(value) + 1)
    columns = {"rank": order, "rank_low": np.minimum(low, order), "rank_high": np.maximum(high, order)}
    return pd.DataFrame({**columns, "value": value, "sem": sem}, index=frame.index)


def _is_certainly_above(value: Array, sem: Array) -> Array:
    """Return whether row i is certainly above row j, shape (rows, rows).

    The errors count as independent.
    """
    difference = value[:, None] - value[None]
    bound = _SIGMAS * np.hypot(sem[:, None], sem[None])
    return np.asarray(difference > np.maximum(bound, 1e-9 * np.abs(value[:, None])))


def _find_swapped(frame: pd.DataFrame) -> list[tuple[str, str]]:
    """Return the pairs whose order is certain in both rankings, and not the same."""
    in_a, in_b = (
        _is_certainly_above(frame[f"value_{x}"].to_numpy(), frame[f"sem_{x}"].to_numpy()).astype(bool) for x in "ab"
    )
    names = frame["layer"].tolist()
    return [(names[i], names[j]) for i, j in zip(*np.nonzero(in_a & in_b.T), strict=True)]
