"""The files that a command leaves behind."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from hessrank.files.atomic_write import written_whole
from hessrank.files.paths import record_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from hessrank.analysis.result.ranking import Ranking


class Result(Protocol):
    """What a command has found: a table that can be written and drawn."""

    def to_csv(self, path: str | Path) -> None:
        """Write the table."""
        ...

    def plot(self) -> Axes:
        """Draw it."""
        ...


def save_ranking(
    ranking: Ranking, out: Path | None, plot: Path | None, *, plot_top: int, depth: Path | None = None
) -> list[Path]:
    """Write a ranking's files that were asked for; return their paths."""
    written = []
    if out is not None:
        ranking.to_csv(out)
        written += [out, record_of(out)]
    for path, draw in ((plot, partial(ranking.plot, top=plot_top)), (depth, ranking.plot_depth)):
        if path is not None:
            save_plot(draw, path)
            written.append(path)
    return written


def save_result(found: Result, out: Path | None, plot: Path | None) -> list[Path]:
    """Write a result's table and picture if asked for; return their paths."""
    if out is not None:
        found.to_csv(out)
    if plot is not None:
        save_plot(found.plot, plot)
    return [path for path in (out, plot) if path is not None]


def save_plot(draw: Callable[[], Axes], path: Path) -> None:
    """Write the picture that ``draw`` draws, whole or not at all.

    Raises:
        OutputError: the path cannot be written to.
    """
    figure = draw().get_figure(root=True)
    assert figure is not None
    with written_whole(path) as beside:
        figure.savefig(beside)
