"""``hessrank rank MODEL``: the main job."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    PlotTop,
    Seed,
    Threads,
    TrustPickle,
    TrustSize,
    WeightsKey,
)

if TYPE_CHECKING:
    from hessrank.analysis.result.ranking import Ranking
    from hessrank.analysis.sampling.checkpoint import Checkpoint
    from hessrank.models import LoadedModel


def rank(
    model: ModelPath,
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
        str,
        typer.Option(
            help="self (no labels needed), self-kl, self-mse, cross-entropy, mse, charbonnier, or file.py:fn; "
            "cross-entropy,ignore_index=255 leaves out that label.",
            rich_help_panel=HOW,
        ),
    ] = "self",
    estimator: Annotated[
        str,
        typer.Option(
            help="auto, gauss-newton, exact, curvature-propagation, hutchinson or pyhessian.", rich_help_panel=HOW
        ),
    ] = "auto",
    tolerance: Annotated[
        float, typer.Option(help="Relative difference of two traces that does not matter.", rich_help_panel=HOW)
    ] = 0.1,
    max_probes: Annotated[int, typer.Option(help="Most probes a sample.", rich_help_panel=HOW)] = 64,
    weights: Annotated[bool, typer.Option(help="Traces of the weights too.", rich_help_panel=HOW)] = True,
    increase_probes: Annotated[
        int, typer.Option(help="Probes for the increases; 0: from the traces.", rich_help_panel=HOW)
    ] = 256,
    precision: Annotated[
        str, typer.Option(help="32, bf16 or 16: of the passes; sums are in float32.", rich_help_panel=HOW)
    ] = "32",
    seed: Seed = 0,
    device: Device = "cpu",
    threads: Threads = None,
    by: Annotated[
        str, typer.Option(help="Rank by trace, mean_trace or act_increase_b8.", rich_help_panel=OUTPUT)
    ] = "trace",
    bits: Annotated[
        str | None,
        typer.Option(
            help="Bit-widths to predict the damage for; 4 to 16 by default.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="CSV to write, with a .json record beside it.", rich_help_panel=OUTPUT),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with an interrupted ranking, to the same result as without a break.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Picture to write: .png, .svg, .pdf.", rich_help_panel=OUTPUT)
    ] = None,
    plot_top: PlotTop = 40,
    top: Annotated[int, typer.Option(min=1, help="Rows to print.", rich_help_panel=OUTPUT)] = 20,
) -> None:
    """Rank the layers of MODEL by how much quantizing them hurts."""
    from hessrank.cli.load_inputs import read_bits, read_inputs
    from hessrank.cli.processes import first, joined, own_device
    from hessrank.cli.write_outputs import check_outputs, save_ranking, show_ranking

    if first():
        check_outputs(out, plot, inputs=(model, data, arch and arch.partition(":")[0]))
    widths = read_bits(bits)
    with _kept_beside(out, resume) as checkpoint, joined() as group:
        from hessrank.distributed import Team

        with Team(group).raise_together():
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
                device=own_device(device),
                threads=threads,
            )

        from hessrank.analysis.options import DEFAULT_BITS
        from hessrank.analysis.rank import rank as rank_model
        from hessrank.cli.terminal.ranking_progress import reporter

        with reporter() as progress:
            ranking = rank_model(
                inputs.loaded.model,
                inputs.data,
                loss=loss,
                estimator=estimator,
                by=by,
                num_samples=num_samples,
                batch_size=batch_size,
                max_probes=max_probes,
                tolerance=tolerance,
                seed=seed,
                bits=widths or DEFAULT_BITS,
                weights=weights,
                increase_probes=increase_probes,
                precision=precision,
                progress=progress,
                checkpoint=checkpoint,
                group=group,
            )
        _record(ranking, inputs.loaded)
        written = save_ranking(ranking, out, plot, plot_top=plot_top) if first() else []
    if first():
        show_ranking(ranking, top, written)


@contextmanager
def _kept_beside(out: Path | None, resume: bool) -> Iterator[Checkpoint | None]:
    """Give a checkpoint beside ``out``; None without a file to write.

    Raises:
        InterruptedWork: instead of KeyboardInterrupt, when there is something to go on from.
    """
    from hessrank.cli.environment import read_seconds
    from hessrank.cli.processes import first
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
            if first():
                checkpoint.claim()
            yield checkpoint
    except KeyboardInterrupt as stop:
        if not checkpoint.saved:
            raise
        raise InterruptedWork(f"{checkpoint.path} holds what was found: go on with --resume") from stop


def _record(ranking: Ranking, loaded: LoadedModel) -> None:
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
