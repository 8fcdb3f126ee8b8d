"""Calibration: a phase of its own, with the observers on and the quantizers off."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from hessrank.analysis.batches import Batch
from hessrank.analysis.feed import Feed, check_finite
from hessrank.errors import DataError, HessrankError, ModelError
from hessrank.quant.prepare.bias_steps import raise_weight_steps
from hessrank.quant.prepare.model import QuantizedModel
from hessrank.quant.quantizers import Quantizer


def calibrate(model: QuantizedModel, feed: Feed) -> None:
    """Show data to a model's observers, give every quantizer its range, and switch the quantizers on.

    Args:
        model: what was prepared; its quantizers are off.
        feed: the samples.

    Raises:
        DataError: the data holds NaN or infinity.
        ModelError: an activation or a weight does, or a bias fits no int32; the message names the layer.
    """

    def show(batch: Batch) -> None:
        check_finite(batch)
        model(*batch.args, **batch.kwargs)

    layers = {one.quantizer: one.layer for one in reversed(model.inserted)}
    modes = {module: module.training for module in model.modules()}
    model.eval()
    with torch.no_grad():
        for path, module in model.quantized_weights():
            with _named(f"{path}.weight"):
                module.observe_weight()
        weights = {id(module.weight_quantizer) for _, module in model.quantized_weights()}
        activations = {path: q for path, q in model.quantizers_by_path() if id(q) not in weights}
        with _observing({layers[path]: quantizer for path, quantizer in activations.items()}):
            feed.each(show)
    for path, quantizer in model.quantizers_by_path():
        with _named(layers[path]):
            quantizer.calibrated()
    raise_weight_steps(model)
    model.set_quantizing(True)
    for part, training in modes.items():
        part.training = training


@contextmanager
def _observing(quantizers: dict[str, Quantizer]) -> Iterator[None]:
    """Switch observers on until the block is left; what goes wrong in one names its layer."""
    running: list[str] = []
    with ExitStack() as stack:
        for layer, quantizer in quantizers.items():
            quantizer.observing = True
            stack.callback(setattr, quantizer, "observing", False)
            handle = quantizer.register_forward_pre_hook(lambda *_, layer=layer: running.append(layer))
            stack.callback(handle.remove)
            handle = quantizer.register_forward_hook(lambda *_: running.clear())
            stack.callback(handle.remove)
        try:
            yield
        except DataError:
            raise
        except HessrankError as error:
            raise ModelError(f"layer {running[-1]!r}: {error}" if running else str(error)) from error


@contextmanager
def _named(what: str) -> Iterator[None]:
    try:
        yield
    except HessrankError as error:
        raise ModelError(f"layer {what!r}: {error}") from error
