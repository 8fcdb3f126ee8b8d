"""``hessrank export MODEL --policy policy.yaml``: an ONNX file with integer weights, checked by running it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hessrank.cli.option_groups import (
    HOW,
    MODEL,
    OUTPUT,
    Arch,
    ArchArgs,
    BatchSize,
    DataSpec,
    Gain,
    IgnoreKeys,
    InputShape,
    ModelPath,
    NumSamples,
    Plugin,
    Seed,
    Threads,
    TrustPickle,
    TrustSize,
    WeightsKey,
)
from hessrank.errors import LoadError, OptionError
from hessrank.terminal import say

if TYPE_CHECKING:
    from hessrank.data.batch import Batch
    from hessrank.quant.policy import Policy
    from hessrank.quant.prepare import QuantizedModel


def export(
    model: ModelPath,
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
    arch: Arch = None,
    arch_args: ArchArgs = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="Of a checkpoint of a training: the task that builds the network, file.py:Class.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    trust_pickle: TrustPickle = False,
    trust_size: TrustSize = False,
    weights_key: WeightsKey = None,
    ignore_keys: IgnoreKeys = None,
    data: DataSpec = None,
    input_shape: InputShape = None,
    num_samples: NumSamples = None,
    batch_size: BatchSize = 1,
    gain: Gain = None,
    dynamic: Annotated[bool, typer.Option(help="Leave batch, height and width open.", rich_help_panel=OUTPUT)] = True,
    seed: Seed = 0,
    threads: Threads = None,
) -> None:
    """Quantize MODEL as a policy says, calibrate it on the data, write ONNX and compare it with onnxruntime.

    MODEL may be a checkpoint that hessrank train wrote: then it is what was trained.
    """
    from hessrank.cli.write_outputs import check_outputs

    code = (reference.rpartition(":")[0] for reference in (arch, task, *(plugin or ())) if reference)
    read = (model, policy, state, data, *code)
    check_outputs(out, inputs=read, ending=".onnx", beside={scales: ".json"})

    from hessrank.quant.export import export_onnx, require_onnx, write_scales

    require_onnx()

    from hessrank.quant.policy import Policy

    options: dict[str, Any] = {
        "arch": arch,
        "arch_args": arch_args,
        "data": data,
        "input_shape": input_shape,
        "gain": gain,
    }
    if policy is None:
        if state is not None:
            raise OptionError("--state goes with --policy; a checkpoint of a training is given as MODEL")
        if weights_key is not None or ignore_keys:
            raise OptionError("--weights-key and --ignore-keys go with --policy; a checkpoint of a training is whole")
        prepared, one = _trained(model, task=task, plugins=plugin or (), threads=threads, **options)
    else:
        if task is not None:
            raise OptionError(
                "--task goes with a checkpoint of a training, not with --policy: give --arch file.py:factory"
            )
        options |= {"trust_pickle": trust_pickle, "num_samples": num_samples, "seed": seed, "threads": threads}
        options |= {"weights_key": weights_key, "ignore_keys": ignore_keys}
        read_policy = Policy.read(policy, plugins=plugin or ())
        prepared, one = _calibrated(model, read_policy, state, batch_size, **options)
    for warning in prepared.warnings:
        say(f"note: {warning}", err=True)
    report = export_onnx(prepared, out, one.kwargs or one.args, dynamic=dynamic)
    if scales is not None:
        write_scales(prepared, scales)
    say(str(report))
    if scales is not None:
        say(f"wrote {scales}", err=True)


def _calibrated(
    model: Path, policy: Policy, state: Path | None, batch_size: int, **options: Any
) -> tuple[QuantizedModel, Batch]:
    """Return the quantized network, calibrated or with a trained state, and a sample."""
    from hessrank.cli.load_inputs import read_inputs
    from hessrank.data.batch import make_batch
    from hessrank.data.samples import as_samples
    from hessrank.quant.prepare import load_state, prepare
    from hessrank.quant.prepare.prepare import CALIBRATION_SAMPLES

    inputs = read_inputs(model, **options)
    for note in inputs.loaded.notes:
        say(f"note: {note}", err=True)
    network, count = inputs.loaded.model, options["num_samples"] or CALIBRATION_SAMPLES
    prepared = prepare(network, policy, inputs.data, num_samples=count, batch_size=batch_size)
    if state is not None:
        load_state(prepared, state)
    return prepared, make_batch(as_samples(inputs.data, 1), [0], network, needs_target=False)


def _trained(
    model: Path,
    *,
    arch: str | None,
    arch_args: str | None,
    task: str | None,
    plugins: Sequence[str],
    data: str | None,
    input_shape: str | None,
    gain: float | None,
    threads: int | None,
) -> tuple[QuantizedModel, Batch]:
    """Return the network of a training's checkpoint, and a sample: of the data, or the one in the checkpoint."""
    from hessrank.distill.training.outputs.load_trained import example_of, is_trained, load_trained, read_trained
    from hessrank.files.paths import readable_file

    if not is_trained(readable_file(model, error=LoadError)):
        raise OptionError(f"{model} is no checkpoint of a quantized training: give --policy policy.yaml with it")

    import torch

    from hessrank.cli.load_inputs import read_json, read_shape
    from hessrank.data import load_data
    from hessrank.data.batch import make_batch
    from hessrank.data.samples import as_samples

    if threads:
        torch.set_num_threads(threads)
    prepared = load_trained(model, arch=arch, arch_args=read_json(arch_args), task=task, plugins=plugins)
    if data is None:
        return prepared, example_of(read_trained(model)[1])
    samples = as_samples(load_data(data, input_shape=read_shape(input_shape), num_samples=1, gain=gain), 1)
    return prepared, make_batch(samples, [0], prepared, needs_target=False)
