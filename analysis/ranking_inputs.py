"""What a ranking is made from: a network seen layer by layer, a loss and samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from hessrank.analysis.estimators.base import Work, check_curvature
from hessrank.analysis.estimators.probes import Rademacher
from hessrank.analysis.losses import Loss, Self
from hessrank.data.batch import Batch
from hessrank.errors import HessrankError
from hessrank.network.layer_facts import LayerFacts, SampleAxis
from hessrank.network.layer_sizes import measure_all_sizes
from hessrank.network.layer_survey import check_weights, find_sample_axes
from hessrank.network.network import Network
from hessrank.network.sample_batches import SampleBatches, SampleContents
from hessrank.network.weights import Weight, find_weights
from hessrank.out_of_memory import is_out_of_memory

_ELEMENTS = 2**23  # of activations, that a batch of copies may have


@dataclass(frozen=True)
class RankingInputs:
    """A network, a loss and samples, and what is known about them.

    Attributes:
        network: the network, frozen.
        loss: the loss.
        batches: the samples.
        facts: what is known of each layer, by name; ranges and axes are filled in while the samples are examined.
        weights: the weights that its calls multiply with.
        outputs: most elements that the network returns for a sample.
        contents: checksum and shapes of the samples.
        first_sample: a batch of the first sample alone.
    """

    network: Network
    loss: Loss
    batches: SampleBatches
    facts: dict[str, LayerFacts]
    weights: Sequence[Weight]
    outputs: int
    contents: SampleContents
    first_sample: Batch

    @classmethod
    def of(cls, model: nn.Module, batches: SampleBatches, loss: Loss) -> RankingInputs:
        """Examine a model and the samples for it.

        Args:
            model: the network, frozen by :func:`hessrank.network.frozen_model.freeze`.
            batches: the samples.
            loss: the loss.

        Raises:
            HessrankError: the weights hold NaN, or the network does not run on the samples.
        """
        check_weights(model)
        contents, first = batches.read_all(), batches.batch(0)
        network = Network(model, first)
        facts, outputs = measure_all_sizes(network, batches, contents.shapes)
        return cls(network, loss, batches, facts, find_weights(network, first), outputs, contents, first)

    @property
    def layer_names(self) -> list[str]:
        """Names of the layers in the order of execution."""
        return [layer.name for layer in self.network.layers]

    @property
    def axes(self) -> Mapping[str, SampleAxis]:
        """Where each layer keeps its samples, as far as is known by now."""
        return {name: fact.axis for name, fact in self.facts.items()}

    @cached_property
    def output(self) -> Any:
        """What the network returns for the first sample."""
        return self.network.run(self.first_sample, lambda *_: None).output

    @cached_property
    def why_one_by_one(self) -> str:
        """Why samples cannot share a batch; empty if they can.

        Writes the sample axes of the layers into ``facts``.
        """
        batches = self.batches
        try:
            pair = batches.batch(0, 1) if len(batches) > 1 else _add_mirrored(self.first_sample)
            name = find_sample_axes(self.network, self.first_sample, pair, self.facts)
        except HessrankError as error:
            return f"two samples at once do not work ({error})"
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return "memory has no room for two samples at once"
        return name and f"layer {name!r} does not keep the samples of a batch apart"

    def settle_batches(self) -> list[str]:
        """Set the batch size to 1 where a batch would mix the samples; return notes."""
        if self.batches.batch_size == 1 or len(self.batches) == 1:
            self.batches.batch_size = 1
            return []
        several = len(set(self.contents.shapes)) > 1
        reason = "the samples are of several sizes" if several else self.why_one_by_one
        if not reason:
            return []
        self.batches.batch_size = 1
        return [f"{reason}: they went one by one"]

    def copies(self, batch_size: int, most: int) -> int:
        """Return how many copies of a sample a batch may hold.

        The number of elements decides, not the free memory, so that every run decides the same.
        """
        elements = sum(fact.numel for fact in self.facts.values()) * batch_size
        return 1 if self.why_one_by_one else max(1, min(most, int(_ELEMENTS / max(1, elements))))

    def describe_loss(self) -> dict[str, str]:
        """Return how the output was read, where the loss has a choice."""
        logits = self.loss.logits_among(self.output) if isinstance(self.loss, Self) else []
        if not logits:
            return {}
        return {
            "loss_detail": f"KL divergence, output {', '.join(logits)} taken for logits; regression: --loss self-mse"
        }


def check_loss(inputs: RankingInputs) -> None:
    """Refuse a loss without finite curvature on the first sample.

    Raises:
        LossError: saying why, and what to use instead.
    """
    batch, names = inputs.first_sample, inputs.layer_names
    check_curvature(Work(inputs.network, inputs.loss, batch, Rademacher(0), range(1), names, [], inputs.axes))


def _add_mirrored(one: Batch) -> Batch:
    """Return a batch of one sample and, as a second one, the same backwards."""

    def add(tensor: Tensor) -> Tensor:
        return torch.cat([tensor, tensor.flip(-1)]) if tensor.ndim > 1 else tensor.repeat(2)

    return replace(one.map(add), samples=(0, 0))
