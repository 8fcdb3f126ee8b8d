"""Hutchinson's estimator as it is defined: vᵀHv by double backward, layer by layer.

Unbiased for the Hessian of any twice differentiable loss, through any network, at one double-backward pass
a layer and probe. Hutchinson, "A stochastic estimator of the trace of the influence matrix", 1989; for
quantization: Dong et al., "HAWQ-V2", 2020, section 3.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from hessrank.analysis.batches import Batch, first_line, single_samples
from hessrank.analysis.calls import Call
from hessrank.analysis.estimators.base import (
    ESTIMATORS,
    Estimates,
    Work,
    differentiable_outputs,
    target_of,
)
from hessrank.analysis.estimators.twice import twice_differentiable
from hessrank.analysis.layers import Layer
from hessrank.analysis.weights import Weight
from hessrank.errors import ModelError


@ESTIMATORS.register("hutchinson")
class Hutchinson:
    """tr H of every layer and weight by one double-backward pass each and a probe. The reference, and slow."""

    deterministic = False

    def __call__(self, work: Work) -> Iterator[Estimates]:
        """Run each sample of the batch forward once, then through a double backward a layer and probe."""
        columns = [self._one_sample(work, one) for one in single_samples(work.batch)]
        for probe in zip(*columns, strict=True):
            yield Estimates(torch.cat([e.layers for e in probe], 1), torch.cat([e.weights for e in probe], 1))

    def _one_sample(self, work: Work, one: Batch) -> list[Estimates]:
        with _learnable(work.weights):
            variables, slopes = _first_derivatives(work, one)
            return [self._one_probe(work, one.samples[0], probe, variables, slopes) for probe in work.indices]

    def _one_probe(
        self, work: Work, sample: int, probe: int, variables: list[Tensor | None], slopes: list[Tensor | None]
    ) -> Estimates:
        forms = []
        for stream, (variable, slope) in enumerate(zip(variables, slopes, strict=True)):
            if variable is None or slope is None or not slope.requires_grad:
                forms.append(0.0)  # the loss does not depend on it, or depends on it linearly
                continue
            v = work.probes.draw(variable.numel(), sample=sample, probe=probe, stream=stream)
            forms.append(_quadratic_form(slope, variable, v.reshape(variable.shape).to(variable)))
        values = torch.tensor(forms, dtype=torch.float64).reshape(-1, 1)
        return Estimates(values[: len(work.layers)], values[len(work.layers) :])


def _first_derivatives(work: Work, one: Batch) -> tuple[list[Tensor | None], list[Tensor | None]]:
    """Return the activations and weights wanted, and the loss's gradients with respect to them, recorded."""
    activations: dict[str, Tensor] = {}

    def tap(layer: Layer, call: Call, value: Tensor) -> None:
        activations[layer.name] = value

    with twice_differentiable(), torch.enable_grad():
        run = work.network.run(one, tap, differentiable=True)
        differentiable_outputs(work.loss, one, run.output)
        loss = work.loss.per_sample(run.output, target_of(work.loss, one, run.output)).sum()
        variables = [activations.get(name) for name in work.layers] + [w.parameter for w in work.weights]
        present = [v for v in variables if v is not None]
        found = iter(torch.autograd.grad(loss, present, create_graph=True, allow_unused=True))
        return variables, [None if v is None else next(found) for v in variables]


def _quadratic_form(slope: Tensor, variable: Tensor, v: Tensor) -> float:
    """Return vᵀHv, H the derivative of ``slope`` with respect to ``variable``."""
    try:
        (product,) = torch.autograd.grad(slope, variable, v, retain_graph=True, allow_unused=True)
    except RuntimeError as error:
        if "not implemented" not in str(error):
            raise
        raise ModelError(
            f"something in the network has no second derivative in torch ({first_line(error)}): use gauss-newton"
        ) from error
    return 0.0 if product is None else float((product * v).sum(dtype=torch.float64))


@contextmanager
def _learnable(weights: Sequence[Weight]) -> Iterator[None]:
    for weight in weights:
        weight.parameter.requires_grad_(True)
    try:
        yield
    finally:
        for weight in weights:
            weight.parameter.requires_grad_(False)
