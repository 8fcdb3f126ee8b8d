"""``hessrank export MODEL --policy policy.yaml``: an ONNX file with integer weights, checked by running it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hessrank.cli.options import (
    HOW,
    OUTPUT,
    Arch,
    ArchArgs,
    BatchSize,
    DataSpec,
    Gain,
    InputShape,
    ModelPath,
    NumSamples,
    Seed,
    Threads,
    TrustPickle,
)


def export(
    model: ModelPath,
    policy: Annotated[Path, typer.Option(help="The policy.", show_default=False, rich_help_panel=HOW)],
    out: Annotated[Path, typer.Option(help="ONNX file to write.", show_default=False, rich_help_panel=OUTPUT)],
    state: Annotated[
        Path | None,
        typer.Option(help="What training saved: prepared.state_dict(), for this policy.", rich_help_panel=HOW),
    ] = None,
    scales: Annotated[
        Path | None, typer.Option(help="JSON of all scales and zero points to write.", rich_help_panel=OUTPUT)
    ] = None,
    arch: Arch = None,
    arch_args: ArchArgs = None,
    trust_pickle: TrustPickle = False,
    data: DataSpec = None,
    input_shape: InputShape = None,
    num_samples: NumSamples = None,
    batch_size: BatchSize = 1,
    gain: Gain = None,
    dynamic: Annotated[bool, typer.Option(help="Leave batch, height and width open.", rich_help_panel=OUTPUT)] = True,
    seed: Seed = 0,
    threads: Threads = None,
) -> None:
    """Quantize MODEL as a policy says, calibrate it on the data, write ONNX and compare it with onnxruntime."""
    from hessrank.cli.output import check_outputs

    read = (model, policy, state, data, arch and arch.partition(":")[0])
    check_outputs(out, inputs=read, ending=".onnx", beside={scales: ".json"})

    from hessrank.quant.export import export_onnx, require_onnx, write_scales

    require_onnx()

    from hessrank.analysis.batches import as_samples, make_batch
    from hessrank.cli.inputs import read_inputs
    from hessrank.quant.prepare import load_state, prepare
    from hessrank.quant.prepare.prepare import CALIBRATION_SAMPLES

    inputs = read_inputs(
        model,
        arch=arch,
        arch_args=arch_args,
        trust_pickle=trust_pickle,
        data=data,
        input_shape=input_shape,
        num_samples=num_samples,
        gain=gain,
        seed=seed,
        threads=threads,
    )
    network = inputs.loaded.model
    prepared = prepare(
        network, policy, inputs.data, num_samples=num_samples or CALIBRATION_SAMPLES, batch_size=batch_size
    )
    if state is not None:
        load_state(prepared, state)
    for warning in prepared.warnings:
        typer.echo(f"note: {warning}", err=True)
    one = make_batch(as_samples(inputs.data, 1), [0], network, needs_target=False)
    report = export_onnx(prepared, out, one.kwargs or one.args, dynamic=dynamic)
    typer.echo(str(report))
    if scales is not None:
        write_scales(prepared, scales)
        typer.echo(f"wrote {scales}", err=True)
