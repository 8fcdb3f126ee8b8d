"""Find estimators and losses by name.

A command's help and an error message ask here which names there are; that imports no module of the tables.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hessrank.plugins import Registry

_ESTIMATORS, _LOSSES = "hessrank.analysis.estimators", "hessrank.analysis.losses"

ESTIMATORS: Registry[Callable[..., Any]] = Registry(
    "estimator",
    {
        "gauss-newton": f"{_ESTIMATORS}.gauss_newton",
        "exact": f"{_ESTIMATORS}.gauss_newton",
        "curvature-propagation": f"{_ESTIMATORS}.curvature_propagation.estimator",
        "hutchinson": f"{_ESTIMATORS}.hutchinson",
        "pyhessian": f"{_ESTIMATORS}.pyhessian",
    },
)
"""Estimators: each makes an :class:`~hessrank.analysis.estimators.base.Estimator`."""

LOSSES: Registry[Callable[..., Any]] = Registry(
    "loss",
    {
        **dict.fromkeys(["self", "self-kl", "self-mse"], f"{_LOSSES}.self_distance"),
        "cross-entropy": f"{_LOSSES}.cross_entropy",
        "mse": f"{_LOSSES}.squared_error",
        "charbonnier": f"{_LOSSES}.charbonnier",
    },
)
"""Losses: each makes a :class:`~hessrank.analysis.losses.base.Loss`, of options that are whole numbers."""
