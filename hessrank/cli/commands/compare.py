"""``hessrank compare a.csv b.csv``: do two rankings agree?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hessrank.cli.option_groups import RankingPath
from hessrank.files.paths import record_of
from hessrank.terminal import terminal


def compare(
    a: RankingPath,
    b: Annotated[Path, typer.Argument(help="Another one, of the same network.", show_default=False)],
    by: Annotated[str, typer.Option(help="Compare by trace or mean_trace.")] = "trace",
    out: Annotated[Path | None, typer.Option(help="CSV to write.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Picture to write: .png, .svg, .pdf.")] = None,
    top: Annotated[int, typer.Option(min=1, help="Rows to print of the layers that moved.")] = 20,
) -> None:
    """Tell how well two rankings agree, and which layers moved beyond their error bars."""
    from hessrank.cli.output_paths import check_outputs
    from hessrank.cli.print_results import print_notes
    from hessrank.cli.write_outputs import save_result

    check_outputs(out, plot, inputs=(a, b, record_of(a), record_of(b)), record=False)

    from hessrank.analysis.result.compare import compare as compare_rankings
    from hessrank.analysis.result.ranking import Ranking

    found = compare_rankings(Ranking.read(a), Ranking.read(b), by)
    written = save_result(found, out, plot)
    terminal().print(found.table(top))
    print_notes(found.notes, written)
