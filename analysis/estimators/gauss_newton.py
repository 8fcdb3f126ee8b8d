"""The Gauss-Newton trace of every layer from one or two ordinary backward passes.

Hutchinson's estimator moved to the output side: tr(JᵀBJ) = tr(JJᵀB), J the Jacobian of the output z with
respect to the layer, B = ∂²ℓ/∂z². With a factor B = SSᵀ and a probe w on the output, E‖JᵀSw‖² = tr(JᵀBJ), for
all layers in one backward pass of Sw. Without one, u = Bw is a Hessian-vector product of the loss alone and
E⟨Jᵀw, Jᵀu⟩ = tr(JᵀBJ); the inner product is taken from the squared norms of two passes,
4⟨Jᵀw, Jᵀu⟩ = ‖Jᵀ(w + u)‖² − ‖Jᵀ(w − u)‖², so that no gradient has to be kept.

Schraudolph, "Fast curvature matrix-vector products", 2002; Martens & Grosse 2015, section 2 (JᵀBJ).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import reduce
from operator import add

import torch
from torch import Tensor

from hessrank.analysis.estimators.base import (
    Estimates,
    Work,
    differentiable_outputs,
    find_target,
)
from hessrank.analysis.estimators.batch_copies import BatchCopies
from hessrank.analysis.estimators.gradient_norms import GradientNorms
from hessrank.analysis.estimators.probes import Probes, UnitVectors
from hessrank.analysis.losses import curvature_times
from hessrank.analysis.registries import ESTIMATORS
from hessrank.errors import OptionError


@ESTIMATORS.register("gauss-newton")
class GaussNewton:
    """Estimates tr(JᵀBJ) of every layer and weight by random probes on the output.

    It is the trace of the Hessian itself for the `self` losses, and wherever all that follows the layer is
    piecewise linear.

    Example:
        At x = 1.5 the activation f(x) = x(x + 3)/6 has the slope 1 and bends by ⅓. Of H = 2f′² + 2(f − t)f″ = 2 + 2
        this is the first term:

        >>> import torch
        >>> import hessrank
        >>> network = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Hardswish())
        >>> _ = [torch.nn.init.constant_(parameter, 0.75) for parameter in network.parameters()]
        >>> data = torch.ones(16, 1), torch.full((16, 1), -1.875)
        >>> ranking = hessrank.rank(network, data, loss="mse", estimator="gauss-newton")
        >>> round(float(ranking["0"]["trace"]), 4)
        2.0
    """

    deterministic = False

    def __call__(self, work: Work) -> Iterator[Estimates]:
        """Run the batch's copies forward once, then backward once for one probe a copy.

        Without a factor S it takes two backward passes.
        """
        yield from _GaussNewton(work).quadratics(work.probes, work.indices)


@ESTIMATORS.register("exact")
class Exact:
    """Computes tr(JᵀBJ) without noise, by one backward pass for each output.

    The probes are the unit vectors.

    Example:
        >>> import torch
        >>> import hessrank
        >>> network = torch.nn.Sequential(torch.nn.Linear(2, 3, bias=False), torch.nn.Linear(3, 1, bias=False))
        >>> _ = [torch.nn.init.ones_(weight) for weight in network.parameters()]
        >>> ranking = hessrank.rank(network, torch.ones(4, 2), estimator="exact")
        >>> {layer: (round(ranking[layer]["trace"]), round(ranking[layer]["sem"])) for layer in ranking}
        {'input_1': (36, 0), '0': (6, 0), '1': (2, 0)}
    """

    deterministic = True
    most_outputs = 4096

    def __call__(self, work: Work) -> Iterator[Estimates]:
        """Run the batch forward once, then backward for each element of a sample's output."""
        passes = _GaussNewton(work)
        count = sum(output[0].numel() for output in passes.outputs)
        if count > self.most_outputs:
            raise OptionError(
                f"estimator 'exact' takes one backward pass for each of {count} outputs a sample "
                f"(at most {self.most_outputs}): use gauss-newton"
            )
        yield reduce(add, passes.quadratics(UnitVectors(), range(count)))


class _GaussNewton:
    """One batch with its copies, run forward; a backward pass takes one probe a copy."""

    def __init__(self, work: Work) -> None:
        self._rows = BatchCopies(work.batch, work.copies)
        self._work = replace(work, batch=self._rows.batch)
        self._norms = GradientNorms(self._work)
        self._run = work.network.run(
            self._work.batch, self._norms.hooks, differentiable=True, precision=work.precision
        )
        self.outputs = differentiable_outputs(work.loss, self._work.batch, self._run.output)
        self._target = find_target(work.loss, self._work.batch, self._run.output)

    def quadratics(self, probes: Probes, indices: Sequence[int]) -> Iterator[Estimates]:
        """Yield ⟨Jᵀw, JᵀBw⟩ of every layer, weight and sample, for each probe w."""
        for group, new in self._rows.groups(indices):
            w = self._rows.output_probes(probes, self.outputs, group)
            yield from self._rows.split_by_probe(self._quadratic(w, keep=group[-1] != indices[-1]), new)

    def _quadratic(self, w: list[Tensor], *, keep: bool) -> Estimates:
        """Return ⟨Jᵀw, JᵀBw⟩ by row, for one probe a row."""
        loss, norms, outputs, run = self._work.loss, self._norms, self.outputs, self._run
        with torch.no_grad():
            s = loss.factor(run.output, self._target, w)
        if s is not None:
            return norms.backward(outputs, run.roots, s, keep=keep)
        u = curvature_times(loss, run.output, self._target, w)
        balance = _norm(u) / _norm(w)  # w and u of equal length lose the least when two large norms are subtracted
        if balance == 0:
            return norms.make_zeros()
        plus = norms.backward(outputs, run.roots, [v * balance + h for v, h in zip(w, u, strict=True)], keep=True)
        minus = norms.backward(outputs, run.roots, [v * balance - h for v, h in zip(w, u, strict=True)], keep=keep)
        return (plus - minus) * (0.25 / balance)


def _norm(tensors: Sequence[Tensor]) -> float:
    return math.hypot(*(float(torch.linalg.vector_norm(t)) for t in tensors))
