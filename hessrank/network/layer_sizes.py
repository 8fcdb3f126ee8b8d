"""Measures shapes, elements and multiply-accumulates of every layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from hessrank.data.batch import Batch
from hessrank.network.layer_facts import LayerFacts
from hessrank.network.layer_names import Layer
from hessrank.network.network import Network
from hessrank.network.outputs import output_tensors
from hessrank.network.walks.call import Call

if TYPE_CHECKING:
    from hessrank.network.sample_batches import SampleBatches


_MORE_FLOPS: dict[Any, Callable[..., int]] = {  # by the shapes of their arguments
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda query, key, value, *_, **__: (
        2 * math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])
    ),
    torch.ops.aten.mkldnn_rnn_layer: lambda given, weight, recurrent, *_, **__: (
        2 * given[0] * given[1] * (math.prod(weight) + math.prod(recurrent))
    ),
}
"""Operations of kernels of the CPU that torch's counter does not know."""


@dataclass(frozen=True)
class SampleSizes:
    """Sizes of the layers for one sample.

    Attributes:
        shapes: of each layer's activation, without the batch dimension.
        numels: its number of elements.
        macs: multiply-accumulates of the call that makes it.
        outputs: how many elements the network returns.
    """

    shapes: dict[str, tuple[int, ...]]
    numels: dict[str, int]
    macs: dict[str, int]
    outputs: int


def _measure(network: Network, sample: Batch) -> SampleSizes:
    sizes = SampleSizes({}, {}, {}, 0)
    counter = FlopCounterMode(display=False, custom_mapping=_MORE_FLOPS)
    counted = 0

    def tap(layer: Layer, call: Call, value: Tensor) -> None:
        nonlocal counted
        total = counter.get_total_flops()
        sizes.shapes[layer.name] = tuple(value.shape[1:] if value.ndim and value.shape[0] == 1 else value.shape)
        sizes.numels[layer.name], sizes.macs[layer.name] = value.numel(), (total - counted) // 2
        counted = total

    with counter:
        output = network.run(sample, tap).output
    return replace(sizes, outputs=sum(t[0].numel() for t in output_tensors(output)))


def _combine(network: Network, sizes: Sequence[SampleSizes]) -> dict[str, LayerFacts]:
    """Return what is known of each layer from the sizes for each sample."""
    return {
        layer.name: LayerFacts(
            tuple(of_sample.shapes.get(layer.name, ()) for of_sample in sizes),
            tuple(of_sample.numels.get(layer.name, 0) for of_sample in sizes),
            sum(of_sample.macs.get(layer.name, 0) for of_sample in sizes) / len(sizes),
        )
        for layer in network.layers
    }


def measure_sizes(network: Network, sample: Batch) -> dict[str, LayerFacts]:
    """Return shape, size and MACs of every layer for one sample.

    Args:
        network: the network.
        sample: a batch that holds a single sample.
    """
    return _combine(network, [_measure(network, sample)])


def measure_all_sizes(
    network: Network, batches: SampleBatches, shapes: Sequence[tuple[torch.Size, ...]]
) -> tuple[dict[str, LayerFacts], int]:
    """Return shapes, sizes and MACs of all layers, and the largest output.

    The output is a number of elements; all are over all samples.

    Args:
        network: the network.
        batches: the samples.
        shapes: of each sample's inputs; of those of equal shapes one is run.
    """
    of_shapes: dict[tuple[torch.Size, ...], SampleSizes] = {}
    for index, shape in enumerate(shapes):
        if shape not in of_shapes:
            of_shapes[shape] = _measure(network, batches.batch(index))
    sizes = [of_shapes[shape] for shape in shapes]
    return _combine(network, sizes), max(of_sample.outputs for of_sample in sizes)
