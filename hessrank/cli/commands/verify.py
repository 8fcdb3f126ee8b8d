"""``hessrank verify MODEL ranking.csv``: does the prediction hold?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from hessrank.cli.option_groups import HOW, OUTPUT, BatchOptions, ComputeOptions, DataOptions, ModelOptions
from hessrank.cli.takes_options import takes_options
from hessrank.errors import OutputError
from hessrank.files.paths import readable_file, record_of
from hessrank.terminal import terminal


@takes_options
def verify(
    *,
    source: ModelOptions,
    ranking: Annotated[Path, typer.Argument(help="What hessrank rank wrote for it.", show_default=False)],
    data: DataOptions,
    batches: BatchOptions,
    loss: Annotated[
        str | None,
        typer.Option(help="What measures the increase; the ranking's own by default.", rich_help_panel=HOW),
    ] = None,
    bits: Annotated[
        str | None, typer.Option(help="Bit-widths; 4,8 by default, if it predicts for them.", rich_help_panel=HOW)
    ] = None,
    layer: Annotated[
        list[str] | None, typer.Option(help="Only this layer; may be given again.", rich_help_panel=HOW)
    ] = None,
    weights: Annotated[bool, typer.Option(help="Quantize weights too.", rich_help_panel=HOW)] = True,
    compute: ComputeOptions,
    out: Annotated[Path | None, typer.Option(help="CSV to write.", rich_help_panel=OUTPUT)] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Picture to write: .png, .svg, .pdf.", rich_help_panel=OUTPUT)
    ] = None,
    top: Annotated[
        int, typer.Option(min=1, help="Rows to print of those that are off.", rich_help_panel=OUTPUT)
    ] = 12,
) -> None:
    """Quantize one tensor at a time for real, and set the increase beside what RANKING predicted."""
    from hessrank.cli.load_inputs import read_inputs
    from hessrank.cli.option_values import read_bits
    from hessrank.cli.output_paths import check_outputs
    from hessrank.cli.print_results import print_notes
    from hessrank.cli.write_outputs import save_result

    ranking = readable_file(ranking, error=OutputError)
    check_outputs(out, plot, inputs=(*source.files, ranking, record_of(ranking), data.data), record=False)
    widths = read_bits(bits)

    from hessrank.analysis.result.ranking import Ranking
    from hessrank.analysis.verify.verify import recorded_loss

    predicted = Ranking.read(ranking)
    measured_by = loss or recorded_loss(predicted, record_of(ranking))
    inputs = read_inputs(source, data, compute, num_samples=batches.num_samples)

    from hessrank.analysis.verify import verify as verify_ranking
    from hessrank.cli.terminal.ranking_progress import reporter

    with reporter() as progress:
        found = verify_ranking(
            inputs.loaded.model,
            inputs.data,
            predicted,
            loss=measured_by,
            bits=widths or None,
            layers=layer or None,
            weights=weights,
            **asdict(batches),
            progress=progress,
        )
    written = save_result(found, out, plot)
    for table in found.tables(top):
        terminal().print(table)
    print_notes([*inputs.loaded.notes, *found.notes], written)
