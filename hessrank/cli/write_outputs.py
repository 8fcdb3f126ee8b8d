"""What a command leaves behind: the table on stdout, the files that were asked for, a line on stderr for each."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from hessrank.errors import OutputError
from hessrank.files.atomic_write import check_writable, written_whole
from hessrank.files.paths import record_of, resolved
from hessrank.terminal import terminal

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from hessrank.analysis.result.ranking import Ranking

_CONTENT = {
    ".csv": "the table is a CSV file",
    ".yaml": "a policy is a YAML file",
    ".onnx": "the network is an ONNX file",
    ".json": "the scales are a JSON file",
}
_ENDINGS = {".yaml": (".yaml", ".yml")}
_OF_A_MODEL = ("config.json", "generation_config.json")
_PICTURES = (".png", ".svg", ".pdf", ".jpg", ".jpeg", ".webp")


class Result(Protocol):
    """What a command has found: a table that can be written and drawn."""

    def to_csv(self, path: str | Path) -> None:
        """Write the table."""
        ...

    def plot(self) -> Axes:
        """Draw it."""
        ...


def check_outputs(
    out: Path | None,
    *plots: Path | None,
    inputs: Sequence[str | Path | None] = (),
    ending: str = ".csv",
    beside: Mapping[Path | None, str] | None = None,
    record: bool = True,
) -> None:
    """Refuse paths that could not be written to, or where something else lies, before hours of work.

    Args:
        out: the main file, which must end in ``ending``; beside a table a record in ``.json`` is written.
        plots: pictures.
        inputs: what is read: files, or folders of samples or of a model.
        ending: of ``out``.
        beside: other files that are written, with their endings.
        record: whether a record is written beside a table.

    Raises:
        OutputError: saying what is in the way.
    """
    files = {out: ending, **(beside or {})}
    for file, wanted in files.items():
        if file is None:
            continue
        check_writable(file)
        if file.suffix not in _ENDINGS.get(wanted, (wanted,)):
            raise OutputError(f"{file}: {_CONTENT[wanted]}: let its name end in {wanted}")
    for plot in plots:
        if plot is None:
            continue
        check_writable(plot)
        if plot.suffix.lower() not in _PICTURES:
            raise OutputError(f"{plot}: no picture format {plot.suffix!r}; known: {', '.join(_PICTURES)}")
    noted = record_of(out) if record and out is not None and ending == ".csv" else None
    _refuse_collisions([p for p in (*files, noted, *plots) if p is not None], inputs)
    if noted is not None:
        from hessrank.analysis.result.ranking_record import refuse_foreign

        refuse_foreign(noted)


def _refuse_collisions(written: Sequence[Path], inputs: Sequence[str | Path | None]) -> None:
    """Refuse two outputs in one place, an output in the place of an input, and one in a folder that is read."""
    places: dict[Path, Path] = {}
    for path in written:
        other = places.setdefault(resolved(path), path)
        if other is not path:
            raise OutputError(f"{path}: would be written over by {other}: give each file a name of its own")
    for given in inputs:
        place = None if given is None else resolved(os.path.expanduser(given))
        if place in places:
            raise OutputError(f"{given}: is read from and would be written over: give another name to write to")
        for at, path in places.items():
            if at.parent == place and (at.suffix.lower() in _PICTURES or at.name in _OF_A_MODEL):
                raise OutputError(f"{path}: would be one of the files in {given} that are read: write it elsewhere")


def save_ranking(
    ranking: Ranking, out: Path | None, plot: Path | None, *, plot_top: int, depth: Path | None = None
) -> list[Path]:
    """Write a ranking's files where they were asked for; return what was written."""
    written = []
    if out is not None:
        ranking.to_csv(out)
        written += [out, record_of(out)]
    for path, draw in ((plot, partial(ranking.plot, top=plot_top)), (depth, ranking.plot_depth)):
        if path is not None:
            save_plot(draw, path)
            written.append(path)
    return written


def show_ranking(ranking: Ranking, top: int, written: Sequence[Path]) -> None:
    """Print the table, the warnings and what was written."""
    from hessrank.analysis.result.tables import as_table

    console = terminal()
    console.print(as_table(ranking, top, console.width))
    print_notes(ranking.warnings, written)


def save_result(found: Result, out: Path | None, plot: Path | None) -> list[Path]:
    """Write a result's table and its picture where they were asked for; return what was written."""
    if out is not None:
        found.to_csv(out)
    if plot is not None:
        save_plot(found.plot, plot)
    return [path for path in (out, plot) if path is not None]


def print_notes(notes: Sequence[str], written: Sequence[Path]) -> None:
    """Print what a reader should know, and what was written, on stderr."""
    from hessrank.analysis.result.tables import note_lines

    stderr = terminal(err=True)
    if notes:
        stderr.print(note_lines(notes))
    if written:
        stderr.print(f"wrote {', '.join(map(str, written))}")


def save_plot(draw: Callable[[], Axes], path: Path) -> None:
    """Write the picture that ``draw`` draws, whole or not at all.

    Raises:
        OutputError: the path cannot be written to.
    """
    figure = draw().get_figure(root=True)
    assert figure is not None
    with written_whole(path) as beside:
        figure.savefig(beside)
