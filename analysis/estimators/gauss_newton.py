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

import torch
from torch import Tensor

from hessrank.analysis.estimators.base import (
    ESTIMATORS,
    Estimates,
    Work,
    differentiable_outputs,
    target_of,
)
from hessrank.analysis.estimators.gradient_norms import GradientNorms
from hessrank.analysis.losses import curvature_times
from hessrank.analysis.network import Run
from hessrank.analysis.probes import UnitVectors, output_probes
from hessrank.errors import OptionError


@ESTIMATORS.register("gauss-newton")
class GaussNewton:
    """tr(JᵀBJ) of every layer and weight, by random probes on the output.

    It is the trace of the Hessian itself for the `self` losses, and wherever all that follows the layer is
    piecewise linear.
    """

    deterministic = False

    def __call__(self, work: Work) -> Iterator[Estimates]:
        """Run the batch forward once, then one backward pass a probe (two where no S is known)."""
        norms = GradientNorms(work)
        run = work.network.run(work.batch, norms, differentiable=True)
        outputs = differentiable_outputs(work.loss, work.batch, run.output)
        for probe in work.indices:
            w = output_probes(work.probes, outputs, work.batch.samples, probe)
            yield _quadratic(work, norms, run, outputs, w, keep=probe != work.indices[-1])


@ESTIMATORS.register("exact")
class Exact:
    """tr(JᵀBJ) without noise: the unit vectors instead of random probes, one backward pass for each output."""

    deterministic = True
    most_outputs = 4096

    def __call__(self, work: Work) -> Iterator[Estimates]:
        """Run the batch forward once, and backward once for each element of one sample's output."""
        norms = GradientNorms(work)
        run = work.network.run(work.batch, norms, differentiable=True)
        outputs = differentiable_outputs(work.loss, work.batch, run.output)
        count = sum(output[0].numel() for output in outputs)
        if count > self.most_outputs:
            raise OptionError(
                f"estimator 'exact' takes one backward pass for each of {count} outputs a sample "
                f"(at most {self.most_outputs}): use gauss-newton"
            )
        total: Estimates | None = None
        for index in range(count):
            w = output_probes(UnitVectors(), outputs, work.batch.samples, index)
            one = _quadratic(work, norms, run, outputs, w, keep=index != count - 1)
            total = one if total is None else total + one
        assert total is not None
        yield total


def _quadratic(
    work: Work, norms: GradientNorms, run: Run, outputs: list[Tensor], w: list[Tensor], *, keep: bool
) -> Estimates:
    """Return ⟨Jᵀw, JᵀBw⟩ of every layer and sample."""
    target = target_of(work.loss, work.batch, run.output)
    with torch.no_grad():
        s = work.loss.factor(run.output, target, w)
    if s is not None:
        return norms.backward(outputs, run.roots, s, keep=keep)
    u = curvature_times(work.loss, run.output, target, w)
    balance = _norm(u) / _norm(w)  # w and u of equal length lose the least when two large norms are subtracted
    if balance == 0:
        return norms.nothing()
    plus = norms.backward(outputs, run.roots, [v * balance + h for v, h in zip(w, u, strict=True)], keep=True)
    minus = norms.backward(outputs, run.roots, [v * balance - h for v, h in zip(w, u, strict=True)], keep=keep)
    return (plus - minus) * (0.25 / balance)


def _norm(tensors: Sequence[Tensor]) -> float:
    return math.hypot(*(float(torch.linalg.vector_norm(t)) for t in tensors))
