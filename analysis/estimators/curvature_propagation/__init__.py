"""The estimator ``curvature-propagation``: all traces of the full Hessian in two backward passes a probe."""

from hessrank.analysis.estimators.curvature_propagation.estimator import CurvaturePropagation, Segment

__all__ = ["CurvaturePropagation", "Segment"]
