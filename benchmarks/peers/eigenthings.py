"""hessian-eigenthings: an operator for each weight's Hessian, Hutchinson's estimator on it, with a standard error."""

from __future__ import annotations

import importlib
import itertools
from typing import Any

from benchmarks.peers.adapter import Estimates, Sample
from benchmarks.peers.cases import Case


def prepare(case: Case) -> Sample:
    """Make an operator for each weight."""
    library: Any = importlib.import_module("hessian_eigenthings")
    loss = library.supervised_loss(case.criterion)
    operators = {
        name: library.HessianOperator(
            case.model, [(case.x, case.target)], loss, param_filter=library.match_names(f"{name}.weight")
        )
        for name in case.weights()
    }
    seeds = itertools.count()

    def sample(count: int) -> Estimates:
        return {
            name: library.trace(one, num_matvecs=count, method="hutchinson", seed=next(seeds)).samples.tolist()
            for name, one in operators.items()
        }

    return sample
