"""Hutchinson's estimator by its definition: vᵀHv by double backward at each layer.

Unbiased for the Hessian of any twice differentiable loss, through any network, at one double-backward pass
a layer and probe. Hutchinson, "A stochastic estimator of the trace of the influence matrix", 1989; for
quantization: Dong et al., "HAWQ-V2", 2020, section 3.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from hessrank.analysis.estimators.base import (
    Estimates,
    Work,
    differentiable_outputs,
    find_target,
    zeros,
)
from hessrank.analysis.estimators.batch_copies import BatchCopies
from hessrank.analysis.registries import ESTIMATORS
from hessrank.data.batch import Batch, single_samples
from hessrank.errors import ModelError
from hessrank.network.double_backward import allow_double_backward
from hessrank.network.layer_names import Layer
from hessrank.network.padding import real_positions, without_padding
from hessrank.network.walks.call import Call
from hessrank.network.weights import Weight
from hessrank.text import first_line


@ESTIMATORS.register("hutchinson")
class Hutchinson:
    """Estimates tr H by a double-backward pass a layer and probe: the slow reference.

    Example:
        At x = 1.5 the activation f(x) = x(x + 3)/6 has the slope 1 and bends by ⅓: H = 2f′² + 2(f − t)f″ = 2 + 2.

        >>> import torch
        >>> import hessrank
        >>> network = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Hardswish())
        >>> _ = [torch.nn.init.constant_(parameter, 0.75) for parameter in network.parameters()]
        >>> data = torch.ones(16, 1), torch.full((16, 1), -1.875)
        >>> ranking = hessrank.rank(network, data, loss="mse", estimator="hutchinson")
        >>> round(float(ranking["0"]["trace"]), 4)
        4.0
    """

    deterministic = False

    def __call__(self, work: Work) -> Iterator[Estimates]:
        """Run the samples forward, then backward twice for each layer and probe.

        The samples run in copies where a batch does not mix them.

        The Hessian of a weight mixes the samples of a batch: for weights they go one by one.
        """
        if work.copies == 1 or not work.layers:
            columns = [self._estimate_sample(work, one) for one in single_samples(work.batch)]
            for probe in zip(*columns, strict=True):
                yield Estimates(torch.cat([e.layers for e in probe], 1), torch.cat([e.weights for e in probe], 1))
            return
        by_probe = self._estimate_in_copies(work)
        if not work.weights:
            yield from (Estimates(layers, zeros(0, work.batch)) for layers in by_probe)
            return
        for layers, one in zip(by_probe, self(replace(work, layers=[], copies=1)), strict=True):
            yield Estimates(layers, one.weights)

    def _estimate_in_copies(self, work: Work) -> Iterator[Tensor]:
        """Yield vᵀHv of every layer and sample for each probe, in copies of the samples."""
        rows = BatchCopies(work.batch, work.copies)
        variables, slopes = _differentiate_loss(replace(work, batch=rows.batch, weights=[]))
        real = real_positions(rows.batch)
        for group, new in rows.groups(work.indices):
            forms = zeros(len(work.layers), rows.batch)
            for row, (variable, slope) in enumerate(zip(variables, slopes, strict=True)):
                if variable is None or slope is None or not slope.requires_grad:
                    continue
                axis = work.axes[work.layers[row]]
                v = rows.draw(work.probes, variable.numel() // len(rows), group, row, variable.detach())
                counted = without_padding(axis.from_rows(v, variable), axis, real)
                product = _multiply_by_hessian(slope, variable, counted)
                if product is not None:
                    v = axis.rows(counted, len(rows))
                    forms[row] = (axis.rows(product, len(rows)) * v).sum(1, dtype=torch.float64).cpu()
            by_sample = rows.by_sample(forms.T)
            yield from (by_sample[:, copy].T for copy in range(new))

    def _estimate_sample(self, work: Work, one: Batch) -> list[Estimates]:
        """Return vᵀHv of every layer and weight on one sample, for each probe."""
        with _enable_gradients(work.weights):
            derivatives = list(zip(*_differentiate_loss(replace(work, batch=one)), strict=True))
            forms = [
                [self._quadratic_form(work, one, probe, stream, *pair) for stream, pair in enumerate(derivatives)]
                for probe in work.indices
            ]
        values = torch.tensor(forms, dtype=torch.float64).reshape(len(forms), len(derivatives), 1)
        count = len(work.layers)
        return [Estimates(column[:count], column[count:]) for column in values]

    def _quadratic_form(
        self, work: Work, one: Batch, probe: int, stream: int, variable: Tensor | None, slope: Tensor | None
    ) -> float:
        """Return vᵀHv of one layer or weight; ``stream`` is its place among them all."""
        if variable is None or slope is None or not slope.requires_grad:
            return 0.0  # the loss does not depend on it, or depends on it linearly
        v = work.probes.draw(variable.numel(), sample=one.samples[0], probe=probe, stream=stream)
        v = v.reshape(variable.shape).to(variable)
        if stream < len(work.layers):
            v = without_padding(v, work.axes[work.layers[stream]], real_positions(one))
        product = _multiply_by_hessian(slope, variable, v)
        return 0.0 if product is None else float((product * v).sum(dtype=torch.float64))


def _differentiate_loss(work: Work) -> tuple[list[Tensor | None], list[Tensor | None]]:
    """Return the wanted activations and weights, and their recorded gradients."""
    activations: dict[str, Tensor] = {}

    def tap(layer: Layer, call: Call, value: Tensor) -> None:
        activations[layer.name] = value

    with allow_double_backward(), torch.enable_grad():
        run = work.network.run(work.batch, tap, differentiable=True)
        differentiable_outputs(work.loss, work.batch, run.output)
        loss = work.loss.per_sample(run.output, find_target(work.loss, work.batch, run.output)).sum()
        variables = [activations.get(name) for name in work.layers] + [w.parameter for w in work.weights]
        present = [v for v in variables if v is not None]
        found = iter(torch.autograd.grad(loss, present, create_graph=True, allow_unused=True))
        return variables, [None if v is None else next(found) for v in variables]


def _multiply_by_hessian(slope: Tensor, variable: Tensor, v: Tensor) -> Tensor | None:
    """Return Hv, H the derivative of ``slope`` by ``variable``; None where it is 0."""
    try:
        return torch.autograd.grad(slope, variable, v, retain_graph=True, allow_unused=True)[0]
    except RuntimeError as error:
        if "not implemented" not in str(error):
            raise
        raise ModelError(
            f"something in the network has no second derivative in torch ({first_line(error)}): use gauss-newton"
        ) from error


@contextmanager
def _enable_gradients(weights: Sequence[Weight]) -> Iterator[None]:
    for weight in weights:
        weight.parameter.requires_grad_(True)
    try:
        yield
    finally:
        for weight in weights:
            weight.parameter.requires_grad_(False)
