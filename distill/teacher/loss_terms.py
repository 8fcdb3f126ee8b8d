"""The distillation part of the training loss: one term for each hint layer.

loss = task_coeff · task + Σ_layers warm-up(epoch) · coefficient · loss(projection(student), teacher)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from hessrank.distill.run_file.settings import Settings
from hessrank.distill.teacher.loss_registry import make_distillation_loss
from hessrank.distill.teacher.projections import make_projection
from hessrank.errors import LossError, OptionError
from hessrank.quant.policy import Policy


@dataclass(frozen=True)
class Hint:
    """One layer to distill.

    Attributes:
        layer: its name.
        coefficient: of its term in the loss.
        loss: name of the distillation loss.
    """

    layer: str
    coefficient: float
    loss: str


def hints_of(policy: Policy, settings: Settings) -> tuple[Hint, ...]:
    """Return the layers that a policy distills, with coefficients and losses.

    Raises:
        OptionError: as many losses as layers are wanted, or one for all.
    """
    layers, losses = policy.distill_config, settings.distill_loss
    if not layers:
        return ()
    if len(losses) not in {1, len(layers)}:
        raise OptionError(
            f"distill_loss holds {len(losses)} and distill_config {len(layers)}: give one, or one for each layer"
        )
    each = losses * len(layers) if len(losses) == 1 else losses
    return tuple(
        Hint(layer, coefficient, loss)
        for layer, coefficient, loss in zip(layers, policy.distill_coeff, each, strict=True)
    )


class Distillation(nn.Module):
    """The terms of the hint layers.

    Its parameters are 1×1 projections, where channels differ in number.
    """

    def __init__(
        self, hints: Sequence[Hint], student: Mapping[str, Tensor], teacher: Mapping[str, Tensor], settings: Settings
    ) -> None:
        """Make the losses, and projections where they are needed.

        Args:
            hints: the layers.
            student: its activations of one batch, by layer.
            teacher: likewise, of the same batch.
            settings: temperature and warm-up.

        Raises:
            LossError: activations that no 1×1 projection makes alike; the layer and both shapes are named.
            UnknownNameError: there is no such loss.
        """
        super().__init__()
        self.hints, self.warmup = tuple(hints), settings.distill_warmup
        self._losses = {
            hint.layer: make_distillation_loss(hint.loss, temperature=settings.distill_temperature) for hint in hints
        }
        self.projections = nn.ModuleList(
            self._projection(hint.layer, student[hint.layer], teacher[hint.layer]) for hint in hints
        )

    def _projection(self, layer: str, student: Tensor, teacher: Tensor) -> nn.Module:
        try:
            found = None
            if self._losses[layer].needs_same_channels:
                found = make_projection(student.shape, teacher.shape)
            projection = found or nn.Identity()
            self._losses[layer](projection(student), teacher)
        except LossError as error:
            raise LossError(f"layer {layer!r}: {error}") from error
        return projection

    def weight(self, epoch: float) -> float:
        """Return the part of the coefficients that counts: it rises from 0 to 1."""
        return min(1.0, epoch / self.warmup) if self.warmup else 1.0

    def forward(
        self, student: Mapping[str, Tensor], teacher: Mapping[str, Tensor], epoch: float
    ) -> dict[str, Tensor]:
        """Return the term of every layer, a scalar each, coefficient and warm-up included."""
        weight, terms = self.weight(epoch), {}
        for hint, project in zip(self.hints, self.projections, strict=True):
            distance = self._losses[hint.layer](project(student[hint.layer]), teacher[hint.layer])
            terms[hint.layer] = weight * hint.coefficient * distance
        return terms
