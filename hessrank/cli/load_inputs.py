"""From what the command line says to a model on its device and data for it."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hessrank.errors import DataError, OptionError
from hessrank.text import one_line, printable

if TYPE_CHECKING:
    from hessrank.data import Data
    from hessrank.models import LoadedModel


_SHOWN = 80  # letters of an argument in a message


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
    """Load a model and its data; arguments as in :mod:`hessrank.cli.option_groups`.

    Raises:
        HessrankError: something cannot be read, or does not fit.
    """
    shape, arguments = read_shape(input_shape), read_json(arch_args)

    import torch

    from hessrank.models import load_model

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
    from hessrank.data import Data, load_data

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
    label = f"--arch-args {printable(text)[:_SHOWN]!r}"
    try:
        value = json.loads(text, parse_constant=_no_number, parse_float=_finite, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else one_line(error)
        raise OptionError(f"{label}: not JSON ({reason}); write '{{\"width\": 8}}'") from error
    if not isinstance(value, dict):
        raise OptionError(f"{label}: write a JSON object, as '{{\"width\": 8}}'")
    return value


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is no number in JSON")


def _finite(text: str) -> float:
    return float(text) if math.isfinite(float(text)) else _no_number(text)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    for key, count in Counter(key for key, _ in pairs).items():
        if count > 1:
            raise ValueError(f"{key!r} is there {count} times")
    return found


def read_bits(text: str | None) -> tuple[int, ...]:
    """Read ``4,8`` as bit-widths; none for None.

    Raises:
        OptionError: it is something else.
    """
    try:
        return tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError as error:
        raise OptionError(f"--bits {text!r}: write bit-widths from 2 to 16, as 4,8") from error
