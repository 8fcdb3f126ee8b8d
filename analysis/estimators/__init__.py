"""Estimators of the trace of the activation Hessian, by name."""

from hessrank.analysis.estimators.base import Estimates, Estimator, Work
from hessrank.analysis.estimators.choose import Choice, choose_estimators
from hessrank.analysis.estimators.curvature_propagation.estimator import CurvaturePropagation, Segment
from hessrank.analysis.estimators.gauss_newton import Exact, GaussNewton
from hessrank.analysis.estimators.hutchinson import Hutchinson
from hessrank.analysis.estimators.pyhessian import PyHessian
from hessrank.analysis.registries import ESTIMATORS
from hessrank.network.weights import Weight

plan = choose_estimators  # its name up to release 0.5

__all__ = [
    "ESTIMATORS",
    "Choice",
    "CurvaturePropagation",
    "Estimates",
    "Estimator",
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
