"""Makes the vectors that curvature propagation starts with at a cut.

They are pairs (u, s) with E[s uᵀ] = the Hessian at the cut.

A cut is a set of layers that everything before passes through. Behind it the loss is one function of them, and its
Hessian H is known through its products. Two kinds of start:

- at the output, where the loss knows a factor H = S Sᵀ: u = s = S w, or the columns of S one after the other;
- anywhere else: s = H w by double backward. Early in a network a few directions hold most of H, and their
  noise would hide whatever is sent back at random. They are found first (Q = orth(HΩ)) and sent back one by one,
  without noise; only what is left of H, P H P with P = I − Q Qᵀ, is left to random probes. Halko, Martinsson & Tropp
  2011 (the range finder); Meyer, Musco, Musco & Woodruff, "Hutch++", 2021 (for traces).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from hessrank.analysis.estimators.base import Work, differentiable_outputs, find_target
from hessrank.analysis.estimators.batch_copies import BatchCopies, flatten, unflatten
from hessrank.analysis.estimators.curvature_propagation.layer_functions import Pair, fill_missing
from hessrank.analysis.estimators.curvature_propagation.layer_recording import Recording
from hessrank.analysis.estimators.probes import UnitVectors
from hessrank.network.layer_facts import SampleAxis
from hessrank.network.outputs import output_tensors

BALANCE_PROBES = 4
_FLOOR = 0.01  # of the mean weight: an element whose curvature no probe has seen still gets some
_SAFE = 100.0  # times what rounding makes of no curvature at all

SKETCH, BALANCE = 1, 2  # streams of random numbers, beside that of the probes


class CutSource(Protocol):
    """Makes the pairs of vectors that are sent back.

    Attributes:
        numel: random numbers that a row needs.
        slopes: the loss's gradient at each end.
    """

    numel: int
    slopes: list[Tensor]

    def fixed(self) -> Iterator[tuple[list[Pair], int]]:
        """Yield pairs without noise for each end, and how many of the copies count."""
        ...

    def random(self, draws: Tensor) -> list[Pair]:
        """Return a pair for each end from random signs, rows × ``numel``."""
        ...


@dataclass(frozen=True)
class Cut:
    """The recorded layers that everything before them passes through.

    Attributes:
        work: the work at hand.
        rows: the batch with its copies.
        recording: the network as separate layers.
        stream: the first of the streams of random numbers of this cut.
    """

    work: Work
    rows: BatchCopies
    recording: Recording
    stream: int

    @property
    def leaves(self) -> list[Tensor]:
        """The activations."""
        return [self.recording.recorded.steps[layer].leaf for layer in self.recording.ends]

    @property
    def axes(self) -> list[SampleAxis]:
        """Where they keep their samples."""
        layers = self.work.network.layers
        return [self.work.axes[layers[end].name] for end in self.recording.ends]

    def loss(self) -> Tensor:
        """Return the loss of all rows together, with its graph."""
        output, batch = self.recording.output, self.rows.batch
        differentiable_outputs(self.work.loss, batch, output)
        return self.work.loss.per_sample(output, find_target(self.work.loss, batch, output)).sum()

    def slopes(self, *, recorded: bool) -> list[Tensor]:
        """Return the loss's gradient at each leaf."""
        with torch.enable_grad():
            found = torch.autograd.grad(
                self.loss(), self.leaves, create_graph=recorded, retain_graph=True, allow_unused=True
            )
        return fill_missing(found, self.leaves)


class FactorSource:
    """Starts at the output with S w for random w, or with every column of S."""

    def __init__(self, cut: Cut, *, every_column: bool) -> None:
        """Start at the output.

        The way from the cut to the output must be piecewise linear, and the loss must know a factor.
        """
        self._cut = cut
        self._outputs = differentiable_outputs(cut.work.loss, cut.rows.batch, cut.recording.output)
        self.slopes = cut.slopes(recorded=False)
        self._count = sum(output[0].numel() for output in self._outputs)
        self.numel = 0 if every_column else self._count

    @staticmethod
    def fits(cut: Cut) -> bool:
        """Return whether the loss's factor describes all the curvature behind the cut."""
        loss, output, batch = cut.work.loss, cut.recording.output, cut.rows.batch
        w = [torch.zeros_like(z) for z in output_tensors(output)]
        straight = not cut.recording.tail_curved
        with torch.no_grad():
            return straight and loss.factor(output, find_target(loss, batch, output), w) is not None

    def fixed(self) -> Iterator[tuple[list[Pair], int]]:
        """Yield all columns of S, if they are asked for; else nothing."""
        rows = self._cut.rows
        for group, new in rows.groups(range(0 if self.numel else self._count)):
            yield self._make_pairs(rows.draw(UnitVectors(), self._count, group, 0, self._outputs[0])), new

    def random(self, draws: Tensor) -> list[Pair]:
        """Return S w at each end, twice; zeros where all columns of S are sent."""
        if not self.numel:
            return [(torch.zeros_like(x), torch.zeros_like(x)) for x in self._cut.leaves]
        return self._make_pairs(draws)

    def _make_pairs(self, w: Tensor) -> list[Pair]:
        """Return S w at each end for each row of ``w``, rows × outputs."""
        cut, output = self._cut, self._cut.recording.output
        parts = torch.split(w, [z[0].numel() for z in self._outputs], dim=1)
        shaped = [part.reshape(z.shape).to(z) for part, z in zip(parts, self._outputs, strict=True)]
        with torch.no_grad():
            s = cut.work.loss.factor(output, find_target(cut.work.loss, cut.rows.batch, output), shaped)
        assert s is not None
        starts = [(z, part) for z, part in zip(self._outputs, s, strict=True) if z.requires_grad]
        outputs, seeds = zip(*starts, strict=True)
        found = torch.autograd.grad(outputs, cut.leaves, seeds, retain_graph=True, allow_unused=True)
        return [(x, x) for x in fill_missing(found, cut.leaves)]


class HessianSource:
    """Starts at any cut with H w; the largest directions of H are sent separately."""

    def __init__(self, cut: Cut, rank: int) -> None:
        """Find the ``rank`` largest directions, and balance what is left."""
        self._cut = cut
        self.slopes = cut.slopes(recorded=True)
        self.numel = sum(leaf.numel() for leaf in cut.leaves) // len(cut.rows)
        self._basis: Tensor | None = None  # samples × numel × rank
        self._image: Tensor | None = None  # the Hessian times it
        if rank:
            self._basis = torch.linalg.qr(self._columns(rank, None))[0]
            self._image = self._columns(self._basis.shape[2], self._basis)
        self._weight = self._balance()

    def fixed(self) -> Iterator[tuple[list[Pair], int]]:
        """Yield pairs whose products add up to H − P H P, without noise.

        They are Σ qₖ yₖᵀ, y = 2Hq − Q(QᵀHq), which is H − P H P but for its antisymmetric part: exact for every
        trace.
        """
        if self._basis is None or self._image is None:
            return
        inner = self._basis.mT @ self._image
        partners = 2 * self._image - self._basis @ inner
        for group, new in self._cut.rows.groups(range(self._basis.shape[2])):
            ones, others = (self._as_rows(columns[:, :, group]) for columns in (self._basis, partners))
            yield list(zip(self._unflatten(ones), self._unflatten(others), strict=True)), new

    def random(self, draws: Tensor) -> list[Pair]:
        """Return P(α∘w) and P H P(w/α) at each end."""
        one = self._project(draws * self._weight)
        other = self._project(self._multiply(self._project(draws / self._weight)))
        return list(zip(self._unflatten(one), self._unflatten(other), strict=True))

    def _multiply(self, rows: Tensor) -> Tensor:
        """Return H times each row."""
        known = [(g, v) for g, v in zip(self.slopes, self._unflatten(rows), strict=True) if g.requires_grad]
        if not known:
            return torch.zeros_like(rows)
        slopes, vectors = zip(*known, strict=True)
        leaves = self._cut.leaves
        found = torch.autograd.grad(slopes, leaves, vectors, retain_graph=True, allow_unused=True)
        return flatten(fill_missing(found, leaves), self._cut.axes, len(rows))

    def _columns(self, count: int, columns: Tensor | None) -> Tensor:
        """Return H times ``count`` columns, shape (samples, numel, count).

        ``columns`` has the same shape; None takes random ones.
        """
        cut, parts = self._cut, []
        for group, new in cut.rows.groups(range(count)):
            like = cut.leaves[0]
            rows = (
                cut.rows.draw(cut.work.probes, self.numel, group, cut.stream + SKETCH, like)
                if columns is None
                else self._as_rows(columns[:, :, group])
            )
            parts.append(cut.rows.by_sample(self._multiply(rows))[:, :new])
        return torch.cat(parts, dim=1).mT

    def _as_rows(self, columns: Tensor) -> Tensor:
        """Return columns, samples × numel × copies, as rows."""
        return columns.mT.reshape(-1, self.numel)

    def _project(self, rows: Tensor) -> Tensor:
        """Return P times each row."""
        if self._basis is None:
            return rows
        basis = self._basis
        vectors = self._cut.rows.by_sample(rows).mT  # samples × numel × copies
        return self._as_rows(vectors - basis @ (basis.mT @ vectors))

    def _balance(self) -> Tensor:
        """Return α, rows × numel."""
        cut = self._cut

        def images(group: list[int]) -> list[Tensor]:
            draws = cut.rows.draw(cut.work.probes, self.numel, group, cut.stream + BALANCE, cut.leaves[0])
            return [self._project(self._multiply(self._project(draws)))]

        squares = cut.rows.for_all_copies(cut.rows.mean_square(BALANCE_PROBES, images)[0])
        known = [g.detach() for g in self.slopes], [leaf.detach() for leaf in cut.leaves]
        return balance(squares, *(flatten(tensors, cut.axes, len(cut.rows)) for tensors in known))

    def _unflatten(self, rows: Tensor) -> list[Tensor]:
        return unflatten(rows, self._cut.leaves, self._cut.axes)


def balance(mean_square: Tensor, slopes: Tensor, values: Tensor) -> Tensor:
    """Return the weights α = (E h²)^¼ with a floor, rows × n.

    With u = α∘w and s = H(w/α) the elements of both are of one size, and the products of unlike elements, which
    are nothing but noise, as small as can be.

    Args:
        mean_square: E h² of each element.
        slopes: the loss's gradient at each; with the next it gives the rounding error of a Hessian that is 0.
        values: the activation.
    """
    weight = mean_square.sqrt().sqrt()
    rounding = torch.finfo(values.dtype).eps * _rms(slopes) / _rms(values).clamp(min=torch.finfo(values.dtype).tiny)
    weight = weight + _FLOOR * weight.mean(1, keepdim=True) + (_SAFE * rounding).sqrt()
    return torch.where(weight > 0, weight, 1.0)


def _rms(rows: Tensor) -> Tensor:
    return rows.square().mean(1, keepdim=True).sqrt()
