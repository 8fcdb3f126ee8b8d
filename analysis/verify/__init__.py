"""Is the prediction right? One tensor at a time is quantized for real, and the increase measured."""

from hessrank.analysis.verify.verification import Verification
from hessrank.analysis.verify.verify import verify

__all__ = ["Verification", "verify"]
