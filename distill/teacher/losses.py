"""The distillation losses: distances between a student's activations and its teacher's.

Each takes the same layer's activations of both networks for the same batch and returns one number.
None is NaN or has a NaN slope at zero vectors, which ReLU makes plenty of: a zero vector has no direction, so
it is compared as zero and is not pushed anywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from hessrank.errors import LossError
from hessrank.plugins import Registry
from hessrank.text import shape_text


class DistillationLoss(Protocol):
    """The distance of a student's activations to its teacher's; a class of one's own may look like this."""

    @property
    def needs_same_channels(self) -> bool:
        """Return whether channel counts have to agree, by a projection if need be."""
        ...

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the loss, a scalar: the mean over the batch.

        Args:
            student: B×C, or B×C×… with positions; the loss is differentiable in it.
            teacher: likewise, detached.

        Raises:
            LossError: the shapes do not go together.
        """
        ...


DISTILLATION_LOSSES: Registry[Callable[[float], DistillationLoss]] = Registry("distillation loss")
"""What makes a loss, given the temperature: the only option that any of them has."""


class _NoTemperature:
    """A loss that no temperature changes."""

    def __init__(self, temperature: float = 1.0) -> None:
        """Take the temperature that every loss is made with."""


@DISTILLATION_LOSSES.register("mse")
class MeanSquares(_NoTemperature):
    """The hint of FitNets: mean over all elements of (s − t)².

    Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015, equation 3, with a mean in place of half the sum.

    Example:
        >>> import torch
        >>> from hessrank.distill.teacher.loss_registry import make_distillation_loss
        >>> make_distillation_loss("mse")(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 4.0]])).item()
        2.0
    """

    needs_same_channels = True

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the loss of activations B×C×… of equal shape."""
        _check_equal("mse", student, teacher)
        return F.mse_loss(student, teacher.detach())


@DISTILLATION_LOSSES.register("attention-transfer")
class AttentionTransfer(_NoTemperature):
    """Where the activations are large, whatever the channel: 1/(B·P) Σ over samples and positions (q̂ₛ − q̂ₜ)².

    q̂ = q/‖q‖₂ over a sample's P positions, q = Σ over channels of a²: Zagoruyko and Komodakis, "Paying More
    Attention to Attention", ICLR 2017, equation 2 with the map F²sum and, as in the authors' code, the mean of
    the squares in place of the norm.

    Example:
        The student is large at the first position, the teacher, with more channels, at the second or at both alike:

        >>> import torch
        >>> from hessrank.distill.teacher.loss_registry import make_distillation_loss
        >>> loss, student = make_distillation_loss("attention-transfer"), torch.tensor([[[1.0, 0.0]]])
        >>> loss(student, torch.tensor([[[0.0, 1.0], [0.0, 1.0]]])).item()
        1.0
        >>> round(loss(student, torch.tensor([[[5.0, 5.0], [5.0, 5.0]]])).item(), 4)  # 1 − 1/√2
        0.2929
    """

    needs_same_channels = False

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the loss of activations B×C×… that agree in all but the channels."""
        apart = student.ndim != teacher.ndim or _without_channels(student) != _without_channels(teacher)
        if student.ndim < 3 or apart:
            raise _mismatch("attention-transfer", student, teacher, "the same batch and positions, B×C×…")
        return F.mse_loss(_attention(student), _attention(teacher.detach()))


@DISTILLATION_LOSSES.register("cosine")
class Cosine(_NoTemperature):
    """Mean over samples and positions of 1 − cos ∠(s, t), s and t the vectors of channels.

    Where t is zero there is no direction to take: such a position counts as 0, and one where only s is zero as 1.

    Example:
        The first position's vectors are parallel, the second one's at right angles:

        >>> import torch
        >>> from hessrank.distill.teacher.loss_registry import make_distillation_loss
        >>> student = torch.tensor([[[1.0, 1.0], [0.0, 0.0]]])
        >>> teacher = torch.tensor([[[3.0, 0.0], [0.0, 2.0]]])
        >>> make_distillation_loss("cosine")(student, teacher).item()
        0.5
    """

    needs_same_channels = True

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the loss of activations B×C×… of equal shape."""
        _check_equal("cosine", student, teacher)
        teacher = teacher.detach()
        cosine = (_unit(student, 1) * _unit(teacher, 1)).sum(1)
        return torch.where((teacher != 0).any(1), 1 - cosine, 0).mean()


@DISTILLATION_LOSSES.register("logits-kl")
class LogitsKL:
    """T² · KL(softmax(t/T) ‖ softmax(s/T)) along dimension 1 in nats, mean over samples and positions.

    Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015, section 2; the entropy of the
    teacher, which has no slope, is taken off, so that equal logits give 0.

    Example:
        T = 2 takes the student's logits for ¼ and ¾, so that the loss is 2² · KL(½, ½ ‖ ¼, ¾) = 2 · ln(4/3):

        >>> import torch
        >>> from hessrank.distill.teacher.loss_registry import make_distillation_loss
        >>> from math import log
        >>> loss = make_distillation_loss("logits-kl", temperature=2.0)
        >>> round(loss(torch.tensor([[0.0, 2 * log(3)]]), torch.zeros(1, 2)).item(), 4)
        0.5754
    """

    needs_same_channels = False

    def __init__(self, temperature: float) -> None:
        """Take the temperature T."""
        self.temperature = temperature

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the loss of logits B×C or B×C×…, C ≥ 2 classes."""
        if student.shape != teacher.shape or student.ndim < 2 or student.shape[1] < 2:
            raise _mismatch(
                "logits-kl", student, teacher, "logits of the same shape, B×C or B×C×…, of two classes or more"
            )
        log_s, log_t = (F.log_softmax(z / self.temperature, 1) for z in (student, teacher.detach()))
        p = log_t.exp()
        ratio = torch.where(p > 0, log_t - log_s, 0)  # a class that the teacher rules out (logit -∞) counts 0
        return (p * ratio).sum(1).mean() * self.temperature**2


@DISTILLATION_LOSSES.register("similarity-preserving")
class SimilarityPreserving(_NoTemperature):
    """Which samples of a batch are alike: ‖Gₛ − Gₜ‖²_F/B², G the B×B Gram matrix with rows of length 1.

    Tung and Mori, "Similarity-Preserving Knowledge Distillation", ICCV 2019, equations 1 to 3. A batch of one
    tells nothing, its loss is 0.

    Example:
        To the student the two samples have nothing in common, to the teacher they are the same:

        >>> import torch
        >>> from hessrank.distill.teacher.loss_registry import make_distillation_loss
        >>> loss = make_distillation_loss("similarity-preserving")
        >>> round(loss(torch.eye(2), torch.ones(2, 7)).item(), 4)  # 1 − 1/√2
        0.2929
    """

    needs_same_channels = False

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the loss of activations B×… of the same batch."""
        if not student.ndim or not teacher.ndim or len(student) != len(teacher):
            raise _mismatch("similarity-preserving", student, teacher, "the same batch")
        return F.mse_loss(_similarities(student), _similarities(teacher.detach()))


def _unit(x: Tensor, dim: int) -> Tensor:
    """Return x/‖x‖₂ along ``dim``; 0, with slope 0, where x is zero.

    Scaling by the largest element first changes nothing but that no square can vanish or overflow.
    """
    largest = x.detach().abs().amax(dim, keepdim=True)
    directed = largest > torch.finfo(x.dtype).tiny
    scaled = x / torch.where(directed, largest, 1)
    norm = torch.linalg.vector_norm(scaled, dim=dim, keepdim=True)
    return scaled / torch.where(directed, norm, 1) * directed


def _attention(x: Tensor) -> Tensor:
    return _unit(x.square().sum(1).flatten(1), 1)


def _similarities(x: Tensor) -> Tensor:
    rows = x.reshape(len(x), -1)
    return _unit(rows @ rows.T, 1)


def _without_channels(x: Tensor) -> tuple[int, ...]:
    return (*x.shape[:1], *x.shape[2:])


def _check_equal(name: str, student: Tensor, teacher: Tensor) -> None:
    if student.shape != teacher.shape or student.ndim < 2:
        raise _mismatch(name, student, teacher, "the same shape, B×C or B×C×…")


def _mismatch(name: str, student: Tensor, teacher: Tensor, wanted: str) -> LossError:
    shapes = f"the student's activation is {shape_text(student.shape)}, the teacher's {shape_text(teacher.shape)}"
    return LossError(f"distillation loss {name!r} wants {wanted}: {shapes}")
