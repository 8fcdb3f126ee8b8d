"""Estimators of the trace of the activation Hessian, by name."""

from typing import TYPE_CHECKING

from hessrank.analysis.estimators.base import Estimates, Estimator, Work
from hessrank.analysis.estimators.choose import EstimatorChoice, choose_estimators
from hessrank.analysis.estimators.curvature_propagation.estimator import CurvaturePropagation, Segment
from hessrank.analysis.estimators.gauss_newton import Exact, GaussNewton
from hessrank.analysis.estimators.hutchinson import Hutchinson
from hessrank.analysis.estimators.pyhessian import PyHessian
from hessrank.analysis.registries import ESTIMATORS
from hessrank.network.weights import Weight
from hessrank.renamed import renamed_names

__all__ = [
    "ESTIMATORS",
    "CurvaturePropagation",
    "Estimates",
    "Estimator",
    "EstimatorChoice",
    "Exact",
    "GaussNewton",
    "Hutchinson",
    "PyHessian",
    "Segment",
    "Weight",
    "Work",
    "choose_estimators",
]

if not TYPE_CHECKING:  # to which every name would then be known
    __getattr__ = renamed_names(
        __name__, globals(), Choice="EstimatorChoice", Stretch="Segment", plan="choose_estimators"
    )
