"""Estimates traces by PyHessian's own code: an independent and slow check of ours.

PyHessian (Yao et al. 2020, the package ``pyhessian``) knows the Hessian of parameters only. So the additive
perturbation of one activation at a time, zeros of its shape, is made the only parameter of a network whose
weights are frozen: its Hessian is then that of the activation.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hessrank.analysis.estimators.base import Estimates, Work, find_target, zeros
from hessrank.analysis.registries import ESTIMATORS
from hessrank.data.batch import Batch, single_samples
from hessrank.errors import OptionError
from hessrank.network.double_backward import allow_double_backward
from hessrank.network.layer_facts import SampleAxis
from hessrank.network.layer_names import Layer
from hessrank.network.network import Network
from hessrank.network.padding import real_positions, without_padding
from hessrank.network.walks.call import Call
from hessrank.requirements import install_command

_NEVER = -float("inf")  # its stopping rule divides by the signed trace: no ratio is below this


@ESTIMATORS.register("pyhessian")
class PyHessian:
    """Estimates tr H of layers by ``pyhessian.hessian(...).trace()``; weights get NaN.

    Example:
        At x = 1.5 the activation f(x) = x(x + 3)/6 has the slope 1 and bends by ⅓: H = 2f′² + 2(f − t)f″ = 2 + 2.

        >>> import torch
        >>> import hessrank
        >>> network = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Hardswish())
        >>> _ = [torch.nn.init.constant_(parameter, 0.75) for parameter in network.parameters()]
        >>> data = torch.ones(16, 1), torch.full((16, 1), -1.875)
        >>> ranking = hessrank.rank(network, data, loss="mse", estimator="pyhessian")
        >>> round(float(ranking["0"]["trace"]), 4)
        4.0
    """

    deterministic = False

    def __call__(self, work: Work) -> Iterator[Estimates]:
        """Run PyHessian once for each sample and layer, with as many probes as asked for."""
        values = torch.empty(len(work.indices), len(work.layers), len(work.batch), dtype=torch.float64)
        for column, one in enumerate(single_samples(work.batch)):
            for row, name in enumerate(work.layers):
                values[:, row, column] = torch.tensor(_estimate_traces(work, one, name), dtype=torch.float64)
        weights = zeros(len(work.weights), work.batch) * float("nan")
        for layers in values:
            yield Estimates(layers, weights)


def _estimate_traces(work: Work, one: Batch, layer: str) -> list[float]:
    """Return PyHessian's vᵀHv of one layer for each probe."""
    try:
        import pyhessian  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise OptionError(f"estimator 'pyhessian' needs PyHessian: {install_command('pyhessian')}") from error
    perturbed = _Perturbed(work.network, one, layer, work.axes[layer])

    def criterion(output: Any, _: Any) -> Tensor:
        return work.loss.per_sample(output, find_target(work.loss, one, output)).sum()

    with allow_double_backward(), torch.enable_grad():
        spectrum = pyhessian.hessian(perturbed, criterion, data=(torch.empty(0), torch.empty(0)), cuda=False)
        spectrum.device = perturbed.perturbation.device  # of its vectors; its own flag knows one GPU only
        slope = spectrum.gradsH[0]
        if not isinstance(slope, Tensor) or not slope.requires_grad:
            perturbed.forget_gradients()
            return [0.0] * len(work.indices)  # the loss is linear in this layer, which PyHessian does not expect
        key = np.random.SeedSequence([getattr(work.probes, "seed", 0), one.samples[0], work.indices[0]])
        torch.manual_seed(int(key.generate_state(1)[0]))  # it draws from torch's global generator
        traces: list[float] = spectrum.trace(maxIter=len(work.indices), tol=_NEVER)
    perturbed.forget_gradients()
    return traces


class _Perturbed(nn.Module):
    """The network as a function of one layer's additive perturbation."""

    def __init__(self, network: Network, batch: Batch, layer: str, axis: SampleAxis) -> None:
        super().__init__()
        self._axis, self._real = axis, real_positions(batch)
        self._run, self._batch, self._layer = network.run, batch, layer
        self._roots: tuple[Tensor, ...] = ()
        shapes: dict[str, Tensor] = {}

        def look(layer: Layer, call: Call, value: Tensor) -> None:
            shapes[layer.name] = value

        network.run(batch, look)
        self.perturbation = nn.Parameter(torch.zeros_like(shapes[layer]))

    def forward(self, _: Tensor) -> Any:
        """Return the network's output."""

        def add(layer: Layer, call: Call, value: Tensor) -> Tensor | None:
            moved = without_padding(self.perturbation, self._axis, self._real)
            return value + moved if layer.name == self._layer else None

        run = self._run(self._batch, add, differentiable=True)
        self._roots = run.roots
        return run.output

    def forget_gradients(self) -> None:
        """Delete the gradients that PyHessian stores in the leaves.

        They refer to the recorded run and are referred to by it, so that its memory would not be freed.
        """
        for leaf in (self.perturbation, *self._roots):
            leaf.grad = None
