"""Estimators of the trace of the activation Hessian, by name."""

from hessrank.analysis.estimators.base import ESTIMATORS, Estimates, Estimator, Work
from hessrank.analysis.estimators.choose import EstimatorChoice, choose_estimators
from hessrank.analysis.estimators.curvature_propagation.estimator import CurvaturePropagation, Segment
from hessrank.analysis.estimators.gauss_newton import Exact, GaussNewton
from hessrank.analysis.estimators.hutchinson import Hutchinson
from hessrank.analysis.estimators.pyhessian import PyHessian
from hessrank.network.weights import Weight

# their names up to release 0.5
Choice = EstimatorChoice
plan = choose_estimators

__all__ = [
    "ESTIMATORS",
    "Choice",
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
    "plan",
]
