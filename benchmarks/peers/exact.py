"""The traces that everyone should find.

Where the Hessian is the Gauss-Newton matrix: the mean of 512 Gauss-Newton probes, whose error is below 1 %;
that they agree with the definition is what :mod:`benchmarks.estimators` and the tests show. For the full Hessian of
the small transformer: vᵀHv summed over all unit vectors, without an error.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vmap

from benchmarks.curved import exact_traces
from benchmarks.peers.cases import Case
from benchmarks.peers.own import CHUNK, work_of
from hessrank.analysis.estimators import GaussNewton
from hessrank.analysis.estimators.probes import Rademacher
from hessrank.network.weights import find_weights

_PROBES = 512
_SEED = 1  # not that of the peers
_AT_ONCE = 128  # unit vectors


def traces(case: Case, probes: int = _PROBES) -> dict[str, dict[str, float]]:
    """Return the traces by ``activations`` and ``weights``, and there by layer."""
    work = work_of(case)
    if case.full_hessian:
        activations = dict(zip(work.layers, exact_traces(work, work.layers).tolist(), strict=True))
        return {"activations": activations, "weights": _weight_traces(case)}
    weights = find_weights(work.network, work.batch)
    work = dataclasses.replace(work, weights=weights, probes=Rademacher(_SEED))
    total = None
    for first in range(0, probes, CHUNK):
        for one in GaussNewton()(dataclasses.replace(work, indices=range(first, first + CHUNK))):
            total = one if total is None else total + one
    assert total is not None
    return {
        "activations": dict(zip(work.layers, (total.layers[:, 0] / probes).tolist(), strict=True)),
        "weights": {w.calls[0]: float(t) / probes for w, t in zip(weights, total.weights[:, 0], strict=True)},
    }


def _weight_traces(case: Case) -> dict[str, float]:
    return {name: _trace(case, name, weight) for name, weight in case.weights().items()}


def _trace(case: Case, name: str, weight: nn.Parameter) -> float:
    """Return the sum of vᵀHv over all unit vectors v, many side by side."""

    def loss(w: Tensor) -> Tensor:
        output = functional_call(case.model, {f"{name}.weight": w}, (case.x,))
        result: Tensor = case.criterion(output, case.target)
        return result

    def form(v: Tensor) -> Tensor:
        product: Tensor = jvp(grad(loss), (weight.detach(),), (v,))[1]
        return (product * v).sum()

    total, size = 0.0, weight.numel()
    for first in range(0, size, _AT_ONCE):
        places = torch.arange(first, min(size, first + _AT_ONCE))
        vectors = torch.nn.functional.one_hot(places, size).to(weight).reshape(-1, *weight.shape)
        total += float(vmap(form)(vectors).sum(dtype=torch.float64))
    return total
