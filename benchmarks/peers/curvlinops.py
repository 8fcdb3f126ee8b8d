"""curvlinops: a linear operator for each tensor's Hessian, and Hutchinson's estimator on it.

It has an operator for weights, and an experimental one for what modules put out; what functions put out (additions,
concatenations, products) has no name there. Check of determinism off, which would double the products.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from benchmarks.peers.adapter import Estimates, Sample
from benchmarks.peers.cases import Case
from hessrank.network.frozen_model import freeze
from hessrank.network.network import Network


def prepare_activations(case: Case) -> Sample:
    """Make an operator for each module that is called once."""
    library: Any = importlib.import_module("curvlinops")
    experimental: Any = importlib.import_module("curvlinops.experimental.activation_hessian")
    with freeze(case.model):
        names = [layer.name for layer in Network(case.model, case.batch).layers]
    modules = dict(case.model.named_modules())
    once = [name for name in names if name in modules and f"{name}_dup1" not in names]
    operators = {
        name: experimental.ActivationHessianLinearOperator(
            case.model, case.criterion, (name, "output", 0), [(case.x, case.target)], check_deterministic=False
        )
        for name in once
    }

    def sample(count: int) -> Estimates:
        return _traces(library, operators, count)

    return sample


def prepare_weights(case: Case) -> Sample:
    """Make an operator for each weight."""
    library: Any = importlib.import_module("curvlinops")
    operators = {
        name: library.HessianLinearOperator(
            case.model, case.criterion, [weight], [(case.x, case.target)], check_deterministic=False
        )
        for name, weight in case.weights().items()
    }

    def sample(count: int) -> Estimates:
        return _traces(library, operators, count)

    return sample


def _traces(library: Any, operators: Mapping[str, Any], count: int) -> Estimates:
    """Ask for ``count`` products with each operator; it refuses as many as the tensor has elements."""
    return {
        name: [float(library.hutchinson_trace(one, num_matvecs=min(count, one.shape[0] - 1)))]
        for name, one in operators.items()
    }
