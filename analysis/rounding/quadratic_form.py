"""Estimates ½ eᵀHe of the rounding errors e = Q(a) − a in one backward pass.

One pass serves all layers and bit-widths.

With a factor S of the loss's curvature at the output and a random w, E[w wᵀ] = I, a backward pass of Sw brings
JᵀSw to every layer, and

    E ⟨JᵀSw, e⟩² = eᵀJᵀS Sᵀ J e = eᵀGe,   G the Gauss-Newton matrix,

for as many errors e as one likes: one inner product each. The same with a weight's gradient and Q(W) − W. Unlike
½ · trace/n · ‖e‖² this assumes nothing about the errors: they may point along each other or along an eigenvector. A
single estimate is a square of a sum of random signs, with a relative standard deviation of at most √2.

The probe on the output is that of Gauss-Newton traces (Schraudolph 2002); the expansion is HAWQ-V2's (Dong et al.
2020, section 3) before its Hessian is replaced by a mean eigenvalue.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from hessrank.analysis.estimators.activation_hooks import ActivationHooks, Hook, send_back, stack_results
from hessrank.analysis.estimators.base import Work, differentiable_outputs, find_target
from hessrank.analysis.estimators.batch_copies import BatchCopies
from hessrank.analysis.rounding.quantize import quantize_weight_widths, rounding_error
from hessrank.network.layer_names import Layer
from hessrank.network.masked_scores import without_masked
from hessrank.network.padding import real_positions, without_padding
from hessrank.network.weights import weight_gradients

_ROOM = 2**26  # rounding errors that are kept of the activations, and as many of the weights: 256 MiB each


class ErrorCache:
    """A cache of rounding errors that several draws use, as far as there is room."""

    def __init__(self) -> None:
        """Keep none yet."""
        self._kept: dict[int, Tensor] = {}
        self._room = _ROOM

    def errors(self, row: int, size: int, round_off: Callable[[], Iterator[Tensor]]) -> Iterable[Tensor]:
        """Return a tensor's rounding errors at all widths.

        They come in one piece from the cache, or as ``round_off`` makes them.

        Args:
            row: which tensor.
            size: how many errors there are, of all widths together.
            round_off: makes them, the widths along the last dimension but one, in one piece or several.
        """
        if row in self._kept:
            return (self._kept[row],)
        if size > self._room:
            return round_off()
        self._room -= size
        self._kept[row] = torch.cat(list(round_off()), dim=-2)
        return (self._kept[row],)


@dataclass(frozen=True)
class Grids:
    """What the tensors are rounded to.

    Attributes:
        bits: the bit-widths.
        ranges: smallest and largest value of each layer.
        axes: for each weight of the work, which of its axes counts the output channels.
        kept: rounding errors of the weights, the same for all samples.
    """

    bits: Sequence[int]
    ranges: Mapping[str, tuple[float, float]]
    axes: Sequence[int]
    kept: ErrorCache = field(default_factory=ErrorCache)


def rounding_increase(work: Work, grids: Grids, *, exact: bool = False) -> Iterator[Tensor]:
    """Yield ½⟨JᵀSw, e⟩² of every layer and weight, for each probe w of ``work``.

    Args:
        work: layers, weights, samples and probes; its loss must know a factor S.
        grids: what is rounded to.
        exact: take a probe for each element that the network returns for these samples instead.

    Yields:
        an unbiased estimate of ½ eᵀGe, in units of the loss, float64 on the CPU, of shape
        (layers + weights, bits, batch).
    """
    rows = BatchCopies(work.batch, work.copies)
    products = _Products(replace(work, batch=rows.batch), grids)
    run = work.network.run(rows.batch, products.hooks, differentiable=True)
    outputs = differentiable_outputs(work.loss, rows.batch, run.output)
    target = find_target(work.loss, rows.batch, run.output)
    indices = range(sum(output[0].numel() for output in outputs)) if exact else work.indices
    for group, new in rows.groups(indices):
        w = rows.output_probes(work.probes, outputs, group)
        with torch.no_grad():
            seeds = work.loss.factor(run.output, target, w)
        assert seeds is not None
        send_back(outputs, run.roots, seeds, keep=group[-1] != indices[-1])
        found = rows.by_sample(products.take().square().movedim(-1, 0) / 2)  # samples × copies × …
        yield from (found[:, copy].movedim(0, -1) for copy in range(new))


class _Products:
    """Takes ⟨gradient, rounding error⟩ of each backward pass.

    Kept are the activations of one forward pass, as in training, and for all draws from it as many rounding errors as
    there is room for.
    """

    def __init__(self, work: Work, grids: Grids) -> None:
        """Prepare for the layers and weights of ``work``."""
        self._work, self._grids, self._real = work, grids, real_positions(work.batch)
        self.hooks = ActivationHooks(work, self._layer_hook, self._weight_hook)
        self._found: dict[int, Tensor] = {}  # bits × batch each, on the device until the pass is over
        self._kept = ErrorCache()

    def take(self) -> Tensor:
        """Return the products of the last pass, shape (rows, bits, batch), and clear them.

        They are 0 where no gradient arrived.
        """
        rows = len(self._work.layers) + len(self._work.weights)
        result = stack_results(self._found, (rows, len(self._grids.bits), len(self._work.batch)))
        self._found.clear()
        return result

    def _layer_hook(self, row: int, layer: Layer, value: Tensor) -> Hook:
        axis, count = self._work.axes[layer.name], len(self._work.batch)
        value = without_masked(value.detach(), axis.masked)
        (low, high), copies = self._grids.ranges[layer.name], self._work.copies
        size = value.numel() // copies * len(self._grids.bits)

        def round_off() -> Iterator[Tensor]:
            rows = axis.rows(value, count)[::copies, None]  # all copies of a sample have one rounding error
            return (rounding_error(rows, low, high, width) for width in self._grids.bits)

        def hook(slope: Tensor) -> None:
            slopes = axis.rows(without_padding(slope, axis, self._real), count)
            slopes = slopes.reshape(count // copies, copies, -1)
            products = [slopes @ errors.mT for errors in self._kept.errors(row, size, round_off)]
            self._found[row] = torch.cat(products, dim=2).flatten(0, 1).T

        return hook

    def _weight_hook(self, index: int, layer: Layer, module: nn.Module, given: Tensor) -> Hook:
        axis, count, row = self._work.axes[layer.name], len(self._work.batch), len(self._work.layers) + index
        weight, channels = self._work.weights[index].parameter, self._grids.axes[index]
        rows = torch.unique(given) if isinstance(module, nn.Embedding) else None  # no gradient reaches the others
        used = weight if rows is None else weight[rows]

        def round_off() -> Iterator[Tensor]:
            yield quantize_weight_widths(used, channels, self._grids.bits).sub_(used).flatten(1)

        def hook(slope: Tensor) -> None:
            slope = slope.movedim(axis.dim, 0)
            kept = self._grids.kept if rows is None else self._kept
            (errors,) = kept.errors(row, used.numel() * len(self._grids.bits), round_off)
            gradients = weight_gradients(module, given, slope, count)  # of one sample after the other
            products = [errors @ (g if rows is None else g[rows]).flatten() for g in gradients]
            before = self._found.get(row)  # of another call that shares the weight: its gradient is their sum
            found = torch.stack(products, dim=1)
            self._found[row] = found if before is None else before + found

        return hook
