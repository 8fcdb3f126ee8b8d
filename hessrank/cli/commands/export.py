"""``hessrank export MODEL --policy policy.yaml``: write a checked ONNX file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hessrank.cli.option_groups import (
    HOW,
    MODEL,
    OUTPUT,
    BatchOptions,
    ComputeOptions,
    DataOptions,
    ModelOptions,
    Plugin,
    Seed,
    Threads,
)
from hessrank.cli.takes_options import takes_options
from hessrank.errors import LoadError, OptionError
from hessrank.terminal import say

if TYPE_CHECKING:
    from hessrank.data.batch import Batch
    from hessrank.quant.prepare import QuantizedModel


@takes_options
def export(
    *,
    out: Annotated[Path, typer.Option(help="ONNX file to write.", show_default=False, rich_help_panel=OUTPUT)],
    policy: Annotated[
        Path | None,
        typer.Option(help="The policy; a checkpoint of a training knows its own.", rich_help_panel=HOW),
    ] = None,
    plugin: Plugin = None,
    state: Annotated[
        Path | None,
        typer.Option(help="What training saved: prepared.state_dict(), for this policy.", rich_help_panel=HOW),
    ] = None,
    scales: Annotated[
        Path | None, typer.Option(help="JSON of all scales and zero points to write.", rich_help_panel=OUTPUT)
    ] = None,
    source: ModelOptions,
    task: Annotated[
        str | None,
        typer.Option(
            help="Of a checkpoint of a training: the task that builds the network, file.py:Class.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    data: DataOptions,
    batches: BatchOptions,
    dynamic: Annotated[bool, typer.Option(help="Leave batch, height and width open.", rich_help_panel=OUTPUT)] = True,
    seed: Seed = 0,
    threads: Threads = None,
) -> None:
    """Quantize MODEL as a policy says, calibrate it on the data, write ONNX and compare it with onnxruntime.

    MODEL may be a checkpoint that hessrank train wrote: then it is what was trained.
    """
    from hessrank.cli.output_paths import check_outputs

    code = (reference.rpartition(":")[0] for reference in (task, *(plugin or ())) if reference)
    read = (*source.files, policy, state, data.data, *code)
    check_outputs(out, inputs=read, ending=".onnx", beside={scales: ".json"})

    from hessrank.cli.print_results import print_notes
    from hessrank.quant.export import export_onnx, require_onnx, write_scales

    require_onnx()
    compute = ComputeOptions(seed=seed, threads=threads)
    if policy is None:
        _check_trained(source, state)
        prepared, example = _load_trained(source, task, plugin or (), data, compute)
    else:
        if task is not None:
            raise OptionError(
                "--task goes with a checkpoint of a training, not with --policy: give --arch file.py:factory"
            )
        prepared, example = _calibrate(source, policy, plugin or (), state, data, batches, compute)
    print_notes(prepared.warnings)
    report = export_onnx(prepared, out, example.kwargs or example.args, dynamic=dynamic)
    if scales is not None:
        write_scales(prepared, scales)
    say(str(report))
    if scales is not None:
        say(f"wrote {scales}", err=True)


def _calibrate(
    source: ModelOptions,
    policy: Path,
    plugins: Sequence[str],
    state: Path | None,
    data: DataOptions,
    batches: BatchOptions,
    compute: ComputeOptions,
) -> tuple[QuantizedModel, Batch]:
    """Return the quantized network, calibrated or with a trained state, and a sample."""
    from hessrank.cli.load_inputs import make_example, read_inputs
    from hessrank.cli.print_results import print_notes
    from hessrank.quant.policy import Policy
    from hessrank.quant.prepare import load_state, prepare
    from hessrank.quant.prepare.prepare import CALIBRATION_SAMPLES

    read = Policy.read(policy, plugins=plugins)
    inputs = read_inputs(source, data, compute, num_samples=batches.num_samples)
    print_notes(inputs.loaded.notes)
    network, count = inputs.loaded.model, batches.num_samples or CALIBRATION_SAMPLES
    prepared = prepare(network, read, inputs.data, num_samples=count, batch_size=batches.batch_size)
    if state is not None:
        load_state(prepared, state)
    return prepared, make_example(inputs.data, network)


def _check_trained(source: ModelOptions, state: Path | None) -> None:
    """Refuse what does not go with a checkpoint of a training.

    Raises:
        LoadError: MODEL is no readable file.
        OptionError: it is no such checkpoint, or an option goes with a policy only.
    """
    from hessrank.distill.training.outputs.load_trained import is_trained
    from hessrank.files.paths import readable_file

    if state is not None:
        raise OptionError("--state goes with --policy; a checkpoint of a training is given as MODEL")
    if source.weights_key is not None or source.ignore_keys:
        raise OptionError("--weights-key and --ignore-keys go with --policy; a checkpoint of a training is whole")
    if not is_trained(readable_file(source.model, error=LoadError)):
        raise OptionError(
            f"{source.model} is no checkpoint of a quantized training: give --policy policy.yaml with it"
        )


def _load_trained(
    source: ModelOptions, task: str | None, plugins: Sequence[str], data: DataOptions, compute: ComputeOptions
) -> tuple[QuantizedModel, Batch]:
    """Return the network of a training's checkpoint, and a sample.

    The sample is one of the data, or that in the checkpoint.
    """
    import torch

    from hessrank.cli.load_inputs import make_example
    from hessrank.cli.option_values import read_arch_args, read_shape
    from hessrank.data import load_data
    from hessrank.distill.training.outputs.load_trained import example_of, load_trained, read_trained

    if compute.threads:
        torch.set_num_threads(compute.threads)
    arguments = read_arch_args(source.arch_args)
    prepared = load_trained(source.model, arch=source.arch, arch_args=arguments, task=task, plugins=plugins)
    if data.data is None:
        return prepared, example_of(read_trained(source.model)[1])
    samples = load_data(data.data, input_shape=read_shape(data.input_shape), num_samples=1, gain=data.gain)
    return prepared, make_example(samples, prepared)
