"""Calibration: a phase of its own, with the observers on and the quantizers off."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import cycle
from typing import cast

import torch
from torch import Tensor

from hessrank.data.batch import Batch
from hessrank.errors import HessrankError, ModelError
from hessrank.network.layer_facts import SampleAxis
from hessrank.network.padding import counted_elements, real_positions
from hessrank.network.sample_batches import SampleBatches, check_finite
from hessrank.quant.prepare.bias_steps import raise_weight_steps
from hessrank.quant.prepare.model import QuantizedModel
from hessrank.quant.quantizers import Quantizer


def calibrate(model: QuantizedModel, batches: SampleBatches, axes: Mapping[str, SampleAxis]) -> None:
    """Give every quantizer its range from data, and switch the quantizers on.

    Observers see the elements that a ranking counts: no padding.

    Args:
        model: what was prepared; its quantizers are off.
        batches: the samples.
        axes: where each layer keeps its samples and their positions.

    Raises:
        DataError: the data holds NaN or infinity.
        ModelError: an activation or a weight does, or a bias fits no int32; the message names the layer.
    """
    modes = {module: module.training for module in model.modules()}
    model.eval()
    with torch.no_grad():
        for path, module in model.quantized_weights():
            with _named(f"{path}.weight"):
                module.observe_weight()
        size = None
        while size != batches.batch_size:  # once; anew if memory ran out, as what failed was seen in part
            size = batches.batch_size
            with _Observation(model, axes) as observation:
                batches.for_each(observation.show)
    layers = {one.quantizer: one.layer for one in reversed(model.inserted)}
    for path, quantizer in model.quantizers_by_path():
        with _named(layers[path]):
            quantizer.calibrated()
    raise_weight_steps(model)
    model.set_quantizing(True)
    for part, training in modes.items():
        part.training = training


class _Observation(ExitStack):
    """Shows observers what their quantizers are given, until it is left.

    They forget what they saw before.
    """

    def __init__(self, model: QuantizedModel, axes: Mapping[str, SampleAxis]) -> None:
        super().__init__()
        self._model, self._axes = model, axes
        self._real: Tensor | None = None  # which positions of the batch are no padding
        layer_at = {one.node: one.layer for one in model.inserted if one.tensor != "weight"}
        self._layers = self._calls(layer_at)
        self._following: dict[str, Iterator[str]] = {}
        for path in self._layers:
            quantizer = cast(Quantizer, model.get_submodule(path))
            quantizer.observer.reset()
            self.callback(quantizer.register_forward_pre_hook(self._observer(path)).remove)

    def show(self, batch: Batch) -> None:
        """Run the model on a batch."""
        check_finite(batch)
        self._real = real_positions(batch)
        self._following = {path: cycle(layers) for path, layers in self._layers.items()}
        self._model(*batch.args, **batch.kwargs)

    def _calls(self, layer_at: Mapping[str, str]) -> dict[str, list[str]]:
        """Return the layers behind which each quantizer is called.

        In the order of the graph.
        """
        calls: dict[str, list[str]] = {}
        for node in self._model.graph.nodes:
            if node.name in layer_at:
                calls.setdefault(str(node.target), []).append(layer_at[node.name])
        return calls

    def _observer(self, path: str) -> Callable[[Quantizer, tuple[Tensor, ...]], None]:
        def observe(quantizer: Quantizer, given: tuple[Tensor, ...]) -> None:
            layer, value = next(self._following[path]), given[0]
            counted = counted_elements(value, self._axes[layer], self._real)
            with _named(layer):
                quantizer.observer.observe(value if counted is None else value[counted.expand_as(value)])

        return observe


@contextmanager
def _named(what: str) -> Iterator[None]:
    try:
        yield
    except HessrankError as error:
        raise ModelError(f"layer {what!r}: {error}") from error
