"""From what the command line says to a model on its device and data for it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hessrank.errors import DataError, OptionError

if TYPE_CHECKING:
    from hessrank.analysis.data import Data
    from hessrank.analysis.loading import LoadedModel


@dataclass(frozen=True)
class Inputs:
    """A model, and the data to run it on.

    Attributes:
        loaded: the checkpoint; its model is on the device.
        data: the samples.
    """

    loaded: LoadedModel
    data: Data


def read_inputs(
    model: Path,
    *,
    arch: str | None = None,
    arch_args: str | None = None,
    trust_pickle: bool = False,
    weights_key: str | None = None,
    ignore_keys: Sequence[str] | None = None,
    data: str | None = None,
    input_shape: str | None = None,
    num_samples: int | None = None,
    gain: float | None = None,
    seed: int = 0,
    device: str = "cpu",
    threads: int | None = None,
) -> Inputs:
    """Load a model and its data; arguments as in :mod:`hessrank.cli.options`.

    Raises:
        HessrankError: something cannot be read, or does not fit.
    """
    shape, arguments = read_shape(input_shape), read_json(arch_args)

    import torch

    from hessrank.analysis.loading import load_model

    if threads:
        torch.set_num_threads(threads)
    loaded = load_model(
        model,
        arch=arch,
        arch_args=arguments,
        trust_pickle=trust_pickle,
        weights_key=weights_key,
        ignore_keys=ignore_keys or (),
    )
    source = _data(data, loaded, shape, num_samples, seed, gain)
    try:
        loaded.model.to(torch.device(device))
    except (RuntimeError, AssertionError) as error:
        raise OptionError(f"--device {device}: {str(error).splitlines()[0]}") from error
    return Inputs(loaded, source)


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


def read_shape(text: str | None) -> tuple[int, ...] | None:
    """Read ``3,224,224`` as the shape of one sample; None for None.

    Raises:
        OptionError: it is something else.
    """
    if text is None:
        return None
    try:
        shape = tuple(int(part) for part in text.replace("x", ",").replace("×", ",").split(","))
    except ValueError:
        shape = (0,)
    if min(shape) < 1:
        raise OptionError(f"--input-shape {text!r}: write the shape of one sample, as 3,224,224")
    return shape


def read_json(text: str | None) -> dict[str, Any] | None:
    """Read a JSON object of arguments; None for None.

    Raises:
        OptionError: it is something else.
    """
    if text is None:
        return None
    try:
        value = json.loads(text)
    except ValueError as error:
        raise OptionError(f"--arch-args {text!r}: not JSON ({error}); write '{{\"width\": 8}}'") from error
    if not isinstance(value, dict):
        raise OptionError(f"--arch-args {text!r}: write a JSON object, as '{{\"width\": 8}}'")
    return value


def read_bits(text: str | None) -> tuple[int, ...]:
    """Read ``4,8`` as bit-widths; none for None.

    Raises:
        OptionError: it is something else.
    """
    try:
        return tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError as error:
        raise OptionError(f"--bits {text!r}: write bit-widths from 2 to 16, as 4,8") from error
