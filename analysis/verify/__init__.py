"""Checks predictions: quantizes one tensor at a time and measures the increase."""

from hessrank.analysis.verify.verification import Verification
from hessrank.analysis.verify.verify import verify

__all__ = ["Verification", "verify"]
