"""``hessrank rank MODEL``: the main job."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hessrank.errors import DataError, OptionError

if TYPE_CHECKING:
    from hessrank.analysis.data import Data
    from hessrank.analysis.loading import LoadedModel
    from hessrank.analysis.ranking import Ranking

_MODEL, _DATA, _HOW, _OUTPUT = "Model", "Data", "How", "Output"


def rank(
    model: Annotated[Path, typer.Argument(help=".pth/.pt checkpoint, .safetensors or .pt2", show_default=False)],
    arch: Annotated[
        str | None,
        typer.Option(help="What builds the network: pkg.mod:factory or file.py:factory.", rich_help_panel=_MODEL),
    ] = None,
    arch_args: Annotated[
        str | None, typer.Option(help="Its arguments as JSON: '{\"width\": 8}'.", rich_help_panel=_MODEL)
    ] = None,
    trust_pickle: Annotated[
        bool, typer.Option("--trust-pickle", help="Load files that may run code.", rich_help_panel=_MODEL)
    ] = False,
    data: Annotated[
        str | None,
        typer.Option(
            help=".npy .npz .pt .safetensors, a folder of images or RAW files, pkg.mod:loader, or random "
            "(with --input-shape). Default: the inputs that the checkpoint carries.",
            rich_help_panel=_DATA,
        ),
    ] = None,
    input_shape: Annotated[
        str | None, typer.Option(help="Shape of one sample: 3,224,224.", rich_help_panel=_DATA)
    ] = None,
    num_samples: Annotated[
        int | None,
        typer.Option(help="Samples to use, from the front; at most 32 by default.", rich_help_panel=_DATA),
    ] = None,
    batch_size: Annotated[
        int, typer.Option(help="Samples run together: speed and memory, same result.", rich_help_panel=_DATA)
    ] = 1,
    gain: Annotated[
        float | None,
        typer.Option(help="Amplification of RAW files of unknown exposure.", rich_help_panel=_DATA),
    ] = None,
    loss: Annotated[
        str,
        typer.Option(
            help="self (no labels needed), self-kl, self-mse, cross-entropy, mse, charbonnier, or file.py:fn.",
            rich_help_panel=_HOW,
        ),
    ] = "self",
    estimator: Annotated[
        str, typer.Option(help="auto, gauss-newton, exact, hutchinson or pyhessian.", rich_help_panel=_HOW)
    ] = "auto",
    tolerance: Annotated[
        float,
        typer.Option(help="Relative difference of two traces that does not matter.", rich_help_panel=_HOW),
    ] = 0.1,
    max_probes: Annotated[int, typer.Option(help="Most probes a sample.", rich_help_panel=_HOW)] = 64,
    weights: Annotated[bool, typer.Option(help="Traces of the weights too.", rich_help_panel=_HOW)] = True,
    seed: Annotated[int, typer.Option(help="Same seed, same bytes.", rich_help_panel=_HOW)] = 0,
    device: Annotated[str, typer.Option(help="Where to compute: cpu, cuda.", rich_help_panel=_HOW)] = "cpu",
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads; torch's own choice by default.", rich_help_panel=_HOW)
    ] = None,
    by: Annotated[
        str, typer.Option(help="Rank by trace, mean_trace or act_increase_b8.", rich_help_panel=_OUTPUT)
    ] = "trace",
    bits: Annotated[
        str | None,
        typer.Option(
            help="Bit-widths to predict the damage for; 4 to 16 by default.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="CSV to write, with a .json record beside it.", rich_help_panel=_OUTPUT),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Picture to write: .png, .svg, .pdf.", rich_help_panel=_OUTPUT)
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Rows to print.", rich_help_panel=_OUTPUT)] = 20,
) -> None:
    """Rank the layers of MODEL by how much quantizing them hurts."""
    from hessrank.cli.output import check_outputs, present

    check_outputs(out, plot, inputs=(model, data, arch and arch.partition(":")[0]))
    shape, widths, arguments = _shape(input_shape), _bits(bits), _json(arch_args)

    import torch

    from hessrank.analysis.loading import load_model
    from hessrank.analysis.rank import DEFAULT_BITS
    from hessrank.analysis.rank import rank as rank_model
    from hessrank.cli.progress import reporter

    if threads:
        torch.set_num_threads(threads)
    loaded = load_model(model, arch=arch, arch_args=arguments, trust_pickle=trust_pickle)
    source = _data(data, loaded, shape, num_samples, seed, gain)
    with reporter() as progress:
        ranking = rank_model(
            _on_device(loaded.model, device),
            source,
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
            progress=progress,
        )
    _record(ranking, loaded)
    present(ranking, out, plot, top)


def _on_device(model: Any, device: str) -> Any:
    import torch

    try:
        return model.to(torch.device(device))
    except (RuntimeError, AssertionError) as error:
        raise OptionError(f"--device {device}: {str(error).splitlines()[0]}") from error


def _data(
    spec: str | None,
    loaded: LoadedModel,
    shape: tuple[int, ...] | None,
    num_samples: int | None,
    seed: int,
    gain: float | None,
) -> Data:
    """Return what ``--data`` names, or the inputs that the checkpoint carries."""
    from hessrank.analysis.data import Data, load_data

    if spec is not None:
        return load_data(spec, input_shape=shape or loaded.input_shape, num_samples=num_samples, seed=seed, gain=gain)
    if loaded.inputs is None:
        raise DataError(
            f"{loaded.path}: no data: give --data FILE_OR_FOLDER, or --data random --input-shape 3,224,224"
        )
    if shape and shape != tuple(loaded.inputs.shape[1:]):
        raise DataError(f"--input-shape {shape} does not fit the inputs in {loaded.path}: give --data")
    inputs = loaded.inputs
    description = {"kind": "inputs of the checkpoint", "path": loaded.path, "shape": list(inputs.shape)}
    return Data(list(inputs.float() if inputs.is_floating_point() else inputs), description)


def _record(ranking: Ranking, loaded: LoadedModel) -> None:
    """Note which file was ranked, and by which command."""
    ranking.info["model"] |= {
        "path": loaded.path,
        "sha256": loaded.sha256,
        "format": loaded.format,
        "arch": loaded.arch,
        "arch_args": dict(loaded.arch_args),
    }
    ranking.info["command"] = shlex.join(["hessrank", *sys.argv[1:]])
    ranking.info["warnings"] = [*loaded.notes, *ranking.info["warnings"]]


def _shape(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        shape = tuple(int(part) for part in text.replace("x", ",").replace("×", ",").split(","))
    except ValueError:
        shape = (0,)
    if min(shape) < 1:
        raise OptionError(f"--input-shape {text!r}: write the shape of one sample, as 3,224,224")
    return shape


def _bits(text: str | None) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError as error:
        raise OptionError(f"--bits {text!r}: write bit-widths from 2 to 16, as 4,8") from error


def _json(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        value = json.loads(text)
    except ValueError as error:
        raise OptionError(f"--arch-args {text!r}: not JSON ({error}); write '{{\"width\": 8}}'") from error
    if not isinstance(value, dict):
        raise OptionError(f"--arch-args {text!r}: write a JSON object, as '{{\"width\": 8}}'")
    return value
