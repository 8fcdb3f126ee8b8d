"""What a command prints: its table on stdout, its notes on stderr."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hessrank.terminal import terminal

if TYPE_CHECKING:
    from hessrank.analysis.result.ranking import Ranking


def print_ranking(ranking: Ranking, top: int, written: Sequence[Path]) -> None:
    """Print the table, the warnings and what was written."""
    from hessrank.analysis.result.tables import as_table

    console = terminal()
    console.print(as_table(ranking, top, console.width))
    print_notes(ranking.warnings, written)


def print_notes(notes: Sequence[str], written: Sequence[Path] = ()) -> None:
    """Print what a reader should know, and what was written, on stderr."""
    from hessrank.analysis.result.tables import note_lines

    stderr = terminal(err=True)
    if notes:
        stderr.print(note_lines(notes))
    if written:
        stderr.print(f"wrote {', '.join(map(str, written))}")
