"""What all peers are given: a network, one sample, and a loss that every one of them can be told.

The loss is a module of torch's own. For low-light and ResNet-18 it is the mean squared distance from the network's
own float output (hessrank's ``self-mse``): Sony MCT knows no other, and there the Hessian is the Gauss-Newton matrix.
For the transformer it is cross-entropy with the sample's label, and the traces are those of the full Hessian.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.networks import chain, initialize, resnet18
from benchmarks.transformer import trained_transformer
from hessrank.data.batch import Batch
from hessrank.distill.tasks.lowlight import LowLight


class OneOutput(LowLight):
    """The low-light network with both its pictures in one tensor, B×4×H×W: some peers take no more than one."""

    def forward(self, raw: Tensor) -> Tensor:  # type: ignore[override]
        """Map a mosaic B×1×H×W to the monochrome picture and the color picture, channel by channel."""
        return torch.cat(super().forward(raw), 1)


@dataclass(frozen=True)
class Case:
    """A network to be ranked.

    Attributes:
        name: with the input's shape.
        model: the network in eval mode, without operations in place.
        x: one sample, 1×…
        target: what the loss compares the output with.
        loss: hessrank's name of the loss.
        criterion: the same as a module of torch's own, ``criterion(output, target)``.
    """

    name: str
    model: nn.Module
    x: Tensor
    target: Tensor
    loss: str
    criterion: nn.Module

    @property
    def full_hessian(self) -> bool:
        """Whether the Hessian is more than the Gauss-Newton matrix."""
        return self.loss == "cross-entropy"

    @property
    def batch(self) -> Batch:
        """The sample as hessrank takes it."""
        return Batch((self.x,), target=self.target if self.full_hessian else None, samples=(0,))

    def weights(self) -> dict[str, nn.Parameter]:
        """Return the weights of convolutions and linear layers by their modules' names."""
        kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
        return {name: module.weight for name, module in self.model.named_modules() if isinstance(module, kinds)}


def low_light(size: int = 128, dbf_width: int = 8, dble_width: int = 32) -> Case:
    """Return the low-light network at published widths with random weights, and a RAW of random numbers."""
    torch.manual_seed(0)
    model = OneOutput(dbf_width, dble_width)
    initialize(model)
    return _against_itself(f"low-light, 1×1×{size}×{size}", model.eval(), torch.rand(1, 1, size, size))


def residual(size: int = 224) -> Case:
    """Return ResNet-18 with random weights, and a picture of random numbers."""
    model, x = resnet18(size)
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False  # most peers do not work with activations that are written over
    return _against_itself(f"ResNet-18, 1×3×{size}×{size}", model, x)


def transformer(blocks: int = 2, steps: int = 300) -> Case:
    """Return a GELU transformer that has learned digits, and the unseen digit with the eleventh largest loss."""
    model, x, labels = trained_transformer(blocks, steps)
    with torch.no_grad():
        losses = F.cross_entropy(model(x), labels, reduction="none")
    one = int(losses.argsort(descending=True)[10])
    name = f"GELU transformer, {blocks} blocks, 1×16×4"
    return Case(name, model, x[one : one + 1], labels[one : one + 1], "cross-entropy", nn.CrossEntropyLoss())


def _against_itself(name: str, model: nn.Module, x: Tensor) -> Case:
    with torch.no_grad():
        return Case(name, model, x, model(x), "self-mse", nn.MSELoss())


CASES: dict[str, Callable[[], Case]] = {
    "low-light": low_light,
    "resnet18": residual,
    "transformer": transformer,
}
QUICK: dict[str, Callable[[], Case]] = {
    "chain": lambda: _against_itself("4 × (conv 3×3 + LeakyReLU), 1×16×16×16", *chain(4, size=16)),
}
