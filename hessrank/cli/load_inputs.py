"""From what the command line says to a model on its device and data for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hessrank.cli.option_groups import ComputeOptions, DataOptions, ModelOptions
from hessrank.cli.option_values import read_arch_args, read_shape
from hessrank.errors import DataError, OptionError
from hessrank.text import first_line

if TYPE_CHECKING:
    from torch import nn

    from hessrank.data import Data
    from hessrank.data.batch import Batch
    from hessrank.models import LoadedModel


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
    source: ModelOptions, data: DataOptions, compute: ComputeOptions, *, num_samples: int | None = None
) -> Inputs:
    """Load a model, put it on its device, and load data for it.

    Args:
        source: which model.
        data: which samples.
        compute: where; the seed is that of random data.
        num_samples: how many samples, at most; None for the default.

    Returns:
        the model and its data.

    Raises:
        HessrankError: something cannot be read, or does not fit.
    """
    shape, arguments = read_shape(data.input_shape), read_arch_args(source.arch_args)

    import torch

    from hessrank.models import load_model

    if compute.threads:
        torch.set_num_threads(compute.threads)
    loaded = load_model(
        source.model,
        arch=source.arch,
        arch_args=arguments,
        trust_pickle=source.trust_pickle,
        weights_key=source.weights_key,
        ignore_keys=source.ignore_keys or (),
    )
    samples = _load_samples(data, loaded, shape, num_samples, compute.seed)
    try:
        loaded.model.to(torch.device(compute.device))
    except (RuntimeError, AssertionError) as error:
        raise OptionError(f"--device {compute.device}: {first_line(error)}") from error
    return Inputs(loaded, samples)


def _load_samples(
    options: DataOptions, loaded: LoadedModel, shape: tuple[int, ...] | None, num_samples: int | None, seed: int
) -> Data:
    """Return what ``--data`` names, or the inputs that the checkpoint carries."""
    from hessrank.data import Data, load_data

    if options.data is not None:
        shape = shape or loaded.input_shape
        return load_data(options.data, input_shape=shape, num_samples=num_samples, seed=seed, gain=options.gain)
    if loaded.inputs is None:
        raise DataError(
            f"{loaded.path}: no data: give --data FILE_OR_FOLDER, or --data random --input-shape 3,224,224"
        )
    if shape and shape != tuple(loaded.inputs.shape[1:]):
        raise DataError(f"--input-shape {shape} does not fit the inputs in {loaded.path}: give --data")
    inputs = loaded.inputs
    description = {"kind": "inputs of the checkpoint", "path": loaded.path, "shape": list(inputs.shape)}
    return Data(list(inputs.float() if inputs.is_floating_point() else inputs), description)


def make_example(data: Data, model: nn.Module) -> Batch:
    """Return the first sample as a batch of one, as the model takes it."""
    from hessrank.data.batch import make_batch
    from hessrank.data.samples import as_samples

    return make_batch(as_samples(data, 1), [0], model, needs_target=False)
