"""Estimates all layers' full-Hessian traces in two backward passes a probe.

The Hessian of the loss at a layer is that of what lies behind a cut, carried back, plus one term for every curved
layer m on the way: H = JᵀH_cut J + Σ JₘᵀMₘJₘ, with Mₘ the Hessian of ⟨gₘ, fₘ⟩, gₘ the loss's gradient at m. So two
vectors are sent back: one starts at random, the other with the Hessian times the first, and each curved layer adds a
pair of its own to both. Their inner product at a layer is an unbiased estimate of its trace: all else in it has
mean zero. Martens, Sutskever & Swersky, "Estimating the Hessian by back-propagating curvature", 2012, with cuts
anywhere in the network (the paper: at the output), balanced pairs, deflated cuts (:mod:`cut_hessian`) and couplings
that count only where they matter (:mod:`coupled_regions`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hessrank.analysis.estimators.base import Estimates, Work, zeros
from hessrank.analysis.estimators.batch_copies import BatchCopies
from hessrank.analysis.estimators.curvature_propagation.coupled_regions import Region
from hessrank.analysis.estimators.curvature_propagation.cut_hessian import (
    BALANCE,
    BALANCE_PROBES,
    Cut,
    CutSource,
    FactorSource,
    HessianSource,
    balance,
)
from hessrank.analysis.estimators.curvature_propagation.layer_functions import Injection, LayerFunction, Pair
from hessrank.analysis.estimators.curvature_propagation.layer_recording import Layout, record
from hessrank.analysis.registries import ESTIMATORS
from hessrank.network.padding import real_positions, without_padding
from hessrank.network.weights import weight_products

_STREAMS = 4  # of each cut

Visitor = Callable[[LayerFunction, Pair], None]
"""Takes the pair of vectors that arrives at each layer."""


@dataclass(frozen=True)
class Segment:
    """A part of a network, and how the curvature behind it is probed.

    Attributes:
        first: the first layer, by its place in the order of execution.
        last: the last one; the cut is whatever up to there is read behind it.
        rank: how many directions of the cut's Hessian are sent back without noise. At the output, where it has few
            columns: anything above 0 means all of them.
    """

    first: int
    last: int
    rank: int = 0


@ESTIMATORS.register("curvature-propagation")
class CurvaturePropagation:
    """Estimates tr H of layers and of weights used once, two backward passes a probe.

    Example:
        At x = 1.5 the activation f(x) = x(x + 3)/6 has the slope 1 and bends by ⅓: H = 2f′² + 2(f − t)f″ = 2 + 2.

        >>> import torch
        >>> import hessrank
        >>> network = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Hardswish())
        >>> _ = [torch.nn.init.constant_(parameter, 0.75) for parameter in network.parameters()]
        >>> data = torch.ones(16, 1), torch.full((16, 1), -1.875)
        >>> ranking = hessrank.rank(network, data, loss="mse", estimator="curvature-propagation")
        >>> bool(abs(ranking["0"]["trace"] - 4) < 3 * ranking["0"]["sem"])  # unbiased, but noisy
        True
    """

    deterministic = False

    def __init__(self, segment: Segment | None = None, region: Region | None = None) -> None:
        """Take the layers of ``segment``, grouped into ``region``; None takes all."""
        self._segment, self._region = segment, region

    def __call__(self, work: Work) -> Iterator[Estimates]:
        """Record the batch's forward pass, then send two vectors back for each probe."""
        segment = self._segment or Segment(0, len(work.network.layers) - 1)
        if self._region is None:
            self._region = Layout.of(work.network, work.batch).region(segment.first, segment.last)
        yield from Propagation(work, segment, self._region).estimates()


class Propagation:
    """One recorded batch, and the vectors that are sent back through it.

    Attributes:
        rows: the batch with its copies.
        at_output: whether it starts at the output, where the loss's own factor stands for the Hessian.
    """

    def __init__(self, work: Work, segment: Segment, region: Region) -> None:
        """Record the network, find the loss's gradient everywhere, and balance all pairs."""
        self._work = work
        self.rows = BatchCopies(work.batch, work.copies)
        recording = record(work.network, self.rows.batch, region, segment.first)
        self._recorded_layers, self._ends = recording.recorded, recording.ends
        self._row = {name: row for row, name in enumerate(work.layers)}
        self._weight_row = {weight.calls[0]: row for row, weight in enumerate(work.weights)}
        self._cut = Cut(work, self.rows, recording, _STREAMS * (segment.last + 1))
        self.at_output = False
        if self._ends:
            self._source: CutSource = _choose_source(self._cut, segment)
            slopes = (slope.detach() for slope in self._source.slopes)
            self._recorded_layers.differentiate(dict(zip(self._ends, slopes, strict=True)))
            self.at_output = isinstance(self._source, FactorSource)
            self._injections = Injections(self._cut, self._recorded_layers.all_steps())

    def estimates(self) -> Iterator[Estimates]:
        """Yield the estimates of each probe of the work."""
        work = self._work
        if not self._ends:  # the output does not depend on any of the layers
            yield from (self._make_zeros() for _ in work.indices)
            return
        fixed = self._sum_fixed()
        for group, new in self.rows.groups(work.indices):
            found = self._products()
            self.send(group, found)
            yield from (fixed + one for one in self.rows.split_by_probe(Estimates(found.layers, found.weights), new))

    def send(self, group: Sequence[int], visit: Visitor) -> None:
        """Send one probe of ``group`` back in each copy; ``visit`` sees the vectors."""
        numel = self._source.numel + self._injections.numel
        draws = self.rows.draw(self._work.probes, numel, group, self._cut.stream, self._cut.leaves[0])
        start, rest = torch.split(draws, [self._source.numel, self._injections.numel], dim=1)
        seeds = dict(zip(self._ends, self._source.random(start), strict=True))
        self._recorded_layers.send_back(seeds, self._injections.of(rest), visit)

    def send_fixed(self, visit: Visitor) -> Iterator[int]:
        """Send the pairs without noise back; yield how many copies count each time."""
        for pairs, new in self._source.fixed():
            self._recorded_layers.send_back(dict(zip(self._ends, pairs, strict=True)), None, visit)
            yield new

    def _sum_fixed(self) -> Estimates:
        total = self._make_zeros()
        found = self._products()
        for new in self.send_fixed(found):
            parts = (self.rows.by_sample(values.T)[:, :new].sum(1).T for values in (found.layers, found.weights))
            total = total + Estimates(*parts)
            found.clear()
        return total

    def _products(self) -> Products:
        return Products(self._work, self.rows, self._row, self._weight_row)

    def _make_zeros(self) -> Estimates:
        work = self._work
        return Estimates(zeros(len(work.layers), work.batch), zeros(len(work.weights), work.batch))


class Injections:
    """Makes the pairs that curved layers add to the two vectors: α∘w and M(w/α).

    Attributes:
        numel: random numbers that a row needs for all of them.
    """

    def __init__(self, cut: Cut, steps: Sequence[LayerFunction]) -> None:
        """Balance them for ``steps``."""
        self._steps = [step for step in steps if step.curved]
        self._axes = {
            id(step): [cut.work.axes[cut.work.network.layers[i].name] for i in step.inputs] for step in self._steps
        }
        self._sizes = [leaf.numel() // len(cut.rows) for step in self._steps for leaf in step.leaves]
        self.numel = sum(self._sizes)
        self._weights: dict[int, list[Tensor]] = {}
        if self._steps:
            self._weights = self._balance(cut)

    def of(self, draws: Tensor) -> Injection:
        """Return what adds the pairs made of random signs, rows × ``numel``."""
        split = self._split(draws)

        def make_pairs(step: LayerFunction) -> list[Pair | None]:
            w, weights = split[id(step)], self._weights[id(step)]
            images = step.hessian_times([v / a for v, a in zip(w, weights, strict=True)])
            return [None if h is None else (a * v, h) for v, a, h in zip(w, weights, images, strict=True)]

        return make_pairs

    def _split(self, draws: Tensor) -> dict[int, list[Tensor]]:
        """Return rows as tensors of the shapes of each step's inputs."""
        parts = iter(torch.split(draws, self._sizes, dim=1))
        return {
            id(step): [
                axis.from_rows(next(parts), leaf)
                for leaf, axis in zip(step.leaves, self._axes[id(step)], strict=True)
            ]
            for step in self._steps
        }

    def _balance(self, cut: Cut) -> dict[int, list[Tensor]]:
        def images(group: list[int]) -> list[Tensor]:
            like = self._steps[0].leaves[0]
            drawn = self._split(cut.rows.draw(cut.work.probes, self.numel, group, cut.stream + BALANCE + 1, like))
            found = []
            for step in self._steps:
                for h, leaf, axis in zip(
                    step.hessian_times(drawn[id(step)]), step.leaves, self._axes[id(step)], strict=True
                ):
                    found.append(axis.rows(torch.zeros_like(leaf) if h is None else h, len(cut.rows)))
            return found

        squares = iter(cut.rows.mean_square(BALANCE_PROBES, images))
        weights = []
        for step in self._steps:
            for slope, leaf, axis in zip(step.slopes, step.leaves, self._axes[id(step)], strict=True):
                known = leaf.detach() if slope is None else slope.detach(), leaf.detach()
                rows = (axis.rows(tensor, len(cut.rows)) for tensor in known)
                weights.append(balance(cut.rows.for_all_copies(next(squares)), *rows))
        return self._split(torch.cat(weights, dim=1))


class Products:
    """Collects the inner product of the two vectors at each layer and weight, by row.

    Attributes:
        layers: float64 on the CPU, layers × rows.
        weights: weights × rows.
    """

    def __init__(self, work: Work, rows: BatchCopies, row: dict[str, int], weight_row: dict[str, int]) -> None:
        """Start with zeros."""
        self._work, self._rows, self._row, self._weight_row = work, rows, row, weight_row
        self._real = real_positions(rows.batch)
        self.clear()

    def clear(self) -> None:
        """Start again with zeros."""
        self.layers = torch.zeros(len(self._row), len(self._rows), dtype=torch.float64)
        self.weights = torch.zeros(len(self._work.weights), len(self._rows), dtype=torch.float64)

    def __call__(self, step: LayerFunction, pair: Pair) -> None:
        """Take the products at one layer."""
        name, count = self._work.network.layers[step.layer].name, len(self._rows)
        axis = self._work.axes[name]
        if name in self._row:
            one, other = axis.rows(without_padding(pair[0], axis, self._real), count), axis.rows(pair[1], count)
            self.layers[self._row[name]] = (one * other).sum(1, dtype=torch.float64).cpu()
        if name in self._weight_row and step.call.module is not None and step.call.input is not None:
            given, one, other = (t.movedim(axis.dim, 0) for t in (step.call.input.detach(), *pair))
            found = weight_products(step.call.module, given, one, other, count)
            self.weights[self._weight_row[name]] = found.double().cpu()


def _choose_source(cut: Cut, segment: Segment) -> CutSource:
    """Choose the start with the least noise.

    It is the output if the way there is piecewise linear and the loss knows a factor S.
    """
    at_the_end = segment.last == len(cut.work.network.layers) - 1
    if at_the_end and FactorSource.fits(cut):
        return FactorSource(cut, every_column=segment.rank > 0)
    return HessianSource(cut, segment.rank)
