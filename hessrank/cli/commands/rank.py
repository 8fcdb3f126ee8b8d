"""``hessrank rank MODEL``: the main job."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hessrank.analysis.registries import ESTIMATORS, LOSSES
from hessrank.cli.option_groups import (
    HOW,
    OUTPUT,
    BatchOptions,
    ComputeOptions,
    DataOptions,
    ModelOptions,
    PlotTop,
)
from hessrank.cli.takes_options import takes_options
from hessrank.text import joined

if TYPE_CHECKING:
    from hessrank.analysis.result.ranking import Ranking
    from hessrank.analysis.sampling.checkpoint import Checkpoint
    from hessrank.models import LoadedModel


@dataclass(frozen=True)
class EstimationOptions:
    """What is estimated, and how well."""

    loss: Annotated[
        str,
        typer.Option(
            help=f"self (no labels needed), {', '.join(name for name in LOSSES if name != 'self')}, or file.py:fn; "
            "cross-entropy,ignore_index=255 leaves out that label.",
            rich_help_panel=HOW,
        ),
    ] = "self"
    estimator: Annotated[
        str,
        typer.Option(help=f"{joined(['auto', *ESTIMATORS])}.", rich_help_panel=HOW),
    ] = "auto"
    tolerance: Annotated[
        float, typer.Option(help="Relative difference of two traces that does not matter.", rich_help_panel=HOW)
    ] = 0.1
    max_probes: Annotated[int, typer.Option(help="Most probes a sample.", rich_help_panel=HOW)] = 64
    weights: Annotated[bool, typer.Option(help="Traces of the weights too.", rich_help_panel=HOW)] = True
    increase_probes: Annotated[
        int, typer.Option(help="Probes for the increases; 0: from the traces.", rich_help_panel=HOW)
    ] = 256
    precision: Annotated[
        str, typer.Option(help="32, bf16 or 16: of the passes; sums are in float32.", rich_help_panel=HOW)
    ] = "32"


@dataclass(frozen=True)
class RankingOutputs:
    """What is written and shown of a ranking."""

    by: Annotated[
        str,
        typer.Option(help="Rank by trace, mean_trace or act_increase_b8.", rich_help_panel=OUTPUT),
    ] = "trace"
    bits: Annotated[
        str | None,
        typer.Option(help="Bit-widths to predict the increase for; 4 to 16 by default.", rich_help_panel=OUTPUT),
    ] = None
    out: Annotated[
        Path | None, typer.Option(help="CSV to write, with a .json record beside it.", rich_help_panel=OUTPUT)
    ] = None
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with an interrupted ranking, to the same result as without a break.",
            rich_help_panel=OUTPUT,
        ),
    ] = False
    plot: Annotated[
        Path | None,
        typer.Option(help="Picture to write: .png, .svg, .pdf.", rich_help_panel=OUTPUT),
    ] = None
    plot_top: PlotTop = 40
    top: Annotated[int, typer.Option(min=1, help="Rows to print.", rich_help_panel=OUTPUT)] = 20


@takes_options
def rank(
    source: ModelOptions,
    data: DataOptions,
    batches: BatchOptions,
    estimation: EstimationOptions,
    compute: ComputeOptions,
    outputs: RankingOutputs,
) -> None:
    """Rank the layers of MODEL by how much quantizing them hurts."""
    from hessrank.cli.load_inputs import read_inputs
    from hessrank.cli.option_values import read_bits
    from hessrank.cli.output_paths import check_outputs
    from hessrank.cli.print_results import print_ranking
    from hessrank.cli.processes import choose_device, is_first_process, join_processes
    from hessrank.cli.write_outputs import save_ranking

    if is_first_process():
        check_outputs(outputs.out, outputs.plot, inputs=(*source.files, data.data))
    bits = read_bits(outputs.bits)
    with _open_checkpoint(outputs.out, outputs.resume) as checkpoint, join_processes() as group:
        from hessrank.distributed import Team

        with Team(group).raise_together():
            compute = replace(compute, device=choose_device(compute.device))
            inputs = read_inputs(source, data, compute, num_samples=batches.num_samples)

        from hessrank.analysis.options import DEFAULT_BITS
        from hessrank.analysis.rank import rank as rank_model
        from hessrank.cli.terminal.ranking_progress import reporter

        with reporter() as progress:
            ranking = rank_model(
                inputs.loaded.model,
                inputs.data,
                **asdict(batches),
                **asdict(estimation),
                by=outputs.by,
                seed=compute.seed,
                bits=bits or DEFAULT_BITS,
                progress=progress,
                checkpoint=checkpoint,
                group=group,
            )
        _record_origin(ranking, inputs.loaded)
        files = outputs.out, outputs.plot
        written = save_ranking(ranking, *files, plot_top=outputs.plot_top) if is_first_process() else []
    if is_first_process():
        print_ranking(ranking, outputs.top, written)


@contextmanager
def _open_checkpoint(out: Path | None, resume: bool) -> Iterator[Checkpoint | None]:
    """Give a checkpoint beside ``out``; None without a file to write.

    Raises:
        InterruptedWork: instead of KeyboardInterrupt, when there is something to go on from.
    """
    from hessrank.cli.environment import read_seconds
    from hessrank.cli.processes import is_first_process
    from hessrank.cli.terminal.interrupted_work import InterruptedWork
    from hessrank.errors import OptionError

    if out is None:
        if resume:
            raise OptionError("--resume goes on with what lies beside a table: give the --out it was begun with")
        yield None
        return

    from hessrank.analysis.sampling.checkpoint import Checkpoint

    seconds = read_seconds("HESSRANK_SAVE_SECONDS", 10)
    checkpoint = Checkpoint(out.with_name(f"{out.name}.partial"), resume=resume, seconds=seconds)
    try:
        with checkpoint:
            if is_first_process():
                checkpoint.claim()
            yield checkpoint
    except KeyboardInterrupt as stop:
        if not checkpoint.saved:
            raise
        raise InterruptedWork(f"{checkpoint.path} holds what was found: go on with --resume") from stop


def _record_origin(ranking: Ranking, loaded: LoadedModel) -> None:
    """Note which file was ranked, and by which command."""
    ranking.info["model"] |= {
        "path": loaded.path,
        "sha256": loaded.sha256,
        "format": loaded.format,
        "arch": loaded.arch,
        "arch_args": dict(loaded.arch_args),
        "weights_key": loaded.weights_key,
        "ignored_keys": list(loaded.ignored_keys),
    }
    ranking.info["command"] = shlex.join(["hessrank", *(a for a in sys.argv[1:] if a != "--resume")])
    ranking.info["warnings"] = [*loaded.notes, *ranking.info["warnings"]]
