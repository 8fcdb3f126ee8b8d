"""``hessrank verify MODEL ranking.csv``: does the prediction hold?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hessrank.cli.option_groups import (
    HOW,
    OUTPUT,
    Arch,
    ArchArgs,
    BatchSize,
    DataSpec,
    Device,
    Gain,
    IgnoreKeys,
    InputShape,
    ModelPath,
    NumSamples,
    Seed,
    Threads,
    TrustPickle,
    TrustSize,
    WeightsKey,
)
from hessrank.errors import OutputError
from hessrank.files.paths import readable_file, record_of
from hessrank.terminal import terminal


def verify(
    model: ModelPath,
    ranking: Annotated[Path, typer.Argument(help="What hessrank rank wrote for it.", show_default=False)],
    arch: Arch = None,
    arch_args: ArchArgs = None,
    trust_pickle: TrustPickle = False,
    trust_size: TrustSize = False,
    weights_key: WeightsKey = None,
    ignore_keys: IgnoreKeys = None,
    data: DataSpec = None,
    input_shape: InputShape = None,
    num_samples: NumSamples = None,
    batch_size: BatchSize = 1,
    gain: Gain = None,
    loss: Annotated[
        str | None, typer.Option(help="What measures the damage; the ranking's own by default.", rich_help_panel=HOW)
    ] = None,
    bits: Annotated[
        str | None, typer.Option(help="Bit-widths; 4,8 by default, if it predicts for them.", rich_help_panel=HOW)
    ] = None,
    layer: Annotated[
        list[str] | None, typer.Option(help="Only this layer; may be given again.", rich_help_panel=HOW)
    ] = None,
    weights: Annotated[bool, typer.Option(help="Quantize weights too.", rich_help_panel=HOW)] = True,
    seed: Seed = 0,
    device: Device = "cpu",
    threads: Threads = None,
    out: Annotated[Path | None, typer.Option(help="CSV to write.", rich_help_panel=OUTPUT)] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Picture to write: .png, .svg, .pdf.", rich_help_panel=OUTPUT)
    ] = None,
    top: Annotated[
        int, typer.Option(min=1, help="Rows to print of those that are off.", rich_help_panel=OUTPUT)
    ] = 12,
) -> None:
    """Quantize one tensor at a time for real, and set the damage beside what RANKING predicted."""
    from hessrank.cli.load_inputs import read_bits, read_inputs
    from hessrank.cli.write_outputs import check_outputs, print_notes, save_result

    ranking = readable_file(ranking, error=OutputError)
    read = (model, ranking, record_of(ranking), data, arch and arch.partition(":")[0])
    check_outputs(out, plot, inputs=read, record=False)
    widths = read_bits(bits)

    from hessrank.analysis.result.ranking import Ranking
    from hessrank.analysis.verify.verify import recorded_loss

    predicted = Ranking.read(ranking)
    measured_by = loss or recorded_loss(predicted, record_of(ranking))
    inputs = read_inputs(
        model,
        arch=arch,
        arch_args=arch_args,
        trust_pickle=trust_pickle,
        weights_key=weights_key,
        ignore_keys=ignore_keys,
        data=data,
        input_shape=input_shape,
        num_samples=num_samples,
        gain=gain,
        seed=seed,
        device=device,
        threads=threads,
    )

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
            num_samples=num_samples,
            batch_size=batch_size,
            progress=progress,
        )
    written = save_result(found, out, plot)
    for table in found.tables(top):
        terminal().print(table)
    print_notes([*inputs.loaded.notes, *found.notes], written)
