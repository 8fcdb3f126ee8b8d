"""``hessrank show ranking.csv``: look at a saved ranking again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hessrank.cli.option_groups import PlotTop, RankingPath
from hessrank.files.paths import record_of


def show(
    ranking: RankingPath,
    by: Annotated[str | None, typer.Option(help="Order by another column, as act_increase_b4.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Picture to write: .png, .svg, .pdf.")] = None,
    plot_top: PlotTop = 40,
    depth: Annotated[Path | None, typer.Option(help="Picture of the traces from input to output.")] = None,
    top: Annotated[int, typer.Option(min=1, help="Rows to print.")] = 20,
) -> None:
    """Print a saved ranking, or draw it."""
    from hessrank.analysis.result.ranking import Ranking
    from hessrank.cli.output_paths import check_outputs
    from hessrank.cli.print_results import print_ranking
    from hessrank.cli.write_outputs import save_ranking

    check_outputs(None, plot, depth, inputs=(ranking, record_of(ranking)))
    read = Ranking.read(ranking)
    shown = read.sorted_by(by) if by else read
    print_ranking(shown, top, save_ranking(shown, None, plot, plot_top=plot_top, depth=depth))
