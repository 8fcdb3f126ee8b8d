"""Measures the increase of the loss when one tensor is rounded.

With the rounding error e = Q(a) − a it is d(t) = ℓ(a + t·e) − ℓ(a).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from hessrank.analysis.estimators.base import find_target
from hessrank.analysis.losses import Loss
from hessrank.analysis.rounding.quantize import quantize_weight, rounding_error
from hessrank.analysis.statistics import Array
from hessrank.data.batch import Batch
from hessrank.network.layer_names import Layer
from hessrank.network.masked_scores import without_masked
from hessrank.network.network import Network
from hessrank.network.sample_batches import SampleBatches
from hessrank.network.walks.call import Call
from hessrank.network.weights import Weight, channel_axis, module_of


@dataclass(frozen=True)
class QuantizedTensor:
    """A tensor that is quantized: a layer's activation, or the weight of its call.

    Attributes:
        layer: the layer.
        bits: to how many.
        weight: its weight; None for the activation.
    """

    layer: str
    bits: int
    weight: Weight | None = None

    @property
    def tensor(self) -> str:
        """``activation`` or ``weight``."""
        return "activation" if self.weight is None else "weight"


class IncreaseMeter:
    """Measures the increase of the loss on some samples."""

    def __init__(
        self,
        network: Network,
        batches: SampleBatches,
        loss: Loss,
        ranges: Mapping[str, tuple[float, float]],
        masked: Mapping[str, float],
    ) -> None:
        """Prepare.

        Args:
            network: the network.
            batches: the samples.
            loss: the loss; without a target it compares with the network's own float output.
            ranges: each activation's, which its grid covers.
            masked: of the activations that hold masked scores, up to where these are.
        """
        self._network, self._batches, self._loss, self._ranges, self._masked = network, batches, loss, ranges, masked
        self._in_float: dict[tuple[int, ...], tuple[Any, Tensor]] = {}  # by batch: the target and the loss

    @cached_property
    def losses(self) -> Array:
        """ℓ of each sample in float, shape (samples,)."""
        return self._measure_each(lambda batch: self._run_float(batch)[1])

    def increase(self, what: QuantizedTensor, times: float = 1.0) -> Array:
        """Return d(``times``) of each sample, in units of the loss."""
        return self._measure_each(lambda batch: self._increase(batch, what, times))

    def increase_on(self, batch: Batch, what: QuantizedTensor, times: float = 1.0) -> Array:
        """Return d(``times``) of each sample of a batch, in units of the loss."""
        return np.asarray(self._increase(batch, what, times).cpu().numpy())

    def _increase(self, batch: Batch, what: QuantizedTensor, times: float) -> Tensor:
        target, before = self._run_float(batch)

        def tap(layer: Layer, call: Call, value: Tensor) -> Tensor | None:
            if what.weight is not None or layer.name != what.layer:
                return None
            scores = without_masked(value, self._masked.get(what.layer))  # masked ones have no error
            return value + times * rounding_error(scores, *self._ranges[what.layer], what.bits)

        with (
            _move_weight(module_of(self._network, what.weight), what, times)
            if what.weight is not None
            else nullcontext()
        ):
            output = _to_double(self._network.run(batch, tap).output)
        return self._loss.per_sample(output, target).double() - before

    def _run_float(self, batch: Batch) -> tuple[Any, Tensor]:
        """Return a batch's target and loss in float."""
        if batch.samples not in self._in_float:
            output = _to_double(self._network.run(batch, lambda *_: None).output)
            target = _to_double(find_target(self._loss, batch, output))
            self._in_float[batch.samples] = target, self._loss.per_sample(output, target).double()
        return self._in_float[batch.samples]

    def clipping(self, what: QuantizedTensor) -> float:
        """Return the share of ‖e‖² beyond the grid's range, 0 to 1; 0 for a weight."""
        if what.weight is not None:
            return 0.0
        low, high = self._ranges[what.layer]
        found: list[tuple[float, float]] = []  # ‖e‖² beyond the range, and in all

        def look(batch: Batch) -> None:
            seen: list[tuple[float, float]] = []

            def tap(layer: Layer, call: Call, value: Tensor) -> None:
                if layer.name == what.layer:
                    value = without_masked(value, self._masked.get(what.layer))
                    error = rounding_error(value, low, high, what.bits).double().square()
                    outside = (value < min(low, 0.0)) | (value > max(high, 0.0))
                    seen.append((float(error[outside].sum()), float(error.sum())))

            self._network.run(batch, tap)
            found.extend(seen)  # not before the run is over: if memory runs out, the batch is done again

        self._batches.for_each(look)
        total = sum(squares for _, squares in found)
        return sum(beyond for beyond, _ in found) / total if total else 0.0

    def _measure_each(self, losses_of: Callable[[Batch], Tensor]) -> Array:
        found = np.zeros(len(self._batches))

        def work(batch: Batch) -> None:
            found[list(batch.samples)] = losses_of(batch).cpu().numpy()

        self._batches.for_each(work)
        return found


def agree(predicted: float, measured: float, factor: float) -> bool:
    """Return whether two increases are within a factor of each other."""
    if predicted * measured <= 0:
        return predicted == measured
    return max(predicted / measured, measured / predicted) <= factor


@contextmanager
def _move_weight(module: nn.Module, what: QuantizedTensor, times: float) -> Iterator[None]:
    """Move a weight by a multiple of its rounding error inside the block."""
    assert what.weight is not None
    parameter = what.weight.parameter
    kept = parameter.detach().clone()
    error = quantize_weight(kept, channel_axis(module), what.bits) - kept
    try:
        parameter.data.copy_(kept + times * error)
        yield
    finally:
        parameter.data.copy_(kept)


def _to_double(nest: Any) -> Any:
    """Return a nested structure with its floating-point tensors in float64.

    Differences of losses are small.
    """
    return tree_map(
        lambda leaf: leaf.double() if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf, nest
    )
