"""Estimates the full Hessian's traces by two backward passes a probe."""

from hessrank.analysis.estimators.curvature_propagation.estimator import CurvaturePropagation, Segment

__all__ = ["CurvaturePropagation", "Segment"]
