"""Which layers of a network suffer most when you quantize them, and what to do about it.

``import hessrank`` is cheap; torch is imported when a name is first used.
"""

from __future__ import annotations

import importlib
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from hessrank.errors import HessrankError

if TYPE_CHECKING:
    from hessrank.analysis.checkpoint import Checkpoint
    from hessrank.analysis.compare import Comparison, compare
    from hessrank.analysis.data import Data, load_data
    from hessrank.analysis.loading import LoadedModel, load_model, save_checkpoint
    from hessrank.analysis.rank import rank
    from hessrank.analysis.ranking import Ranking
    from hessrank.analysis.verify import Verification, verify
    from hessrank.distill.training.result import TrainResult
    from hessrank.distill.training.train import train
    from hessrank.distill.training.trained import load_trained
    from hessrank.limits import trusting_sizes
    from hessrank.quant.allocation import allocate
    from hessrank.quant.alternatives import compare_policies
    from hessrank.quant.export import export_onnx
    from hessrank.quant.make_policy import make_policy
    from hessrank.quant.policy import Policy
    from hessrank.quant.prepare import QuantizedModel, prepare
    from hessrank.quant.summary import summarize

__version__ = version("hessrank")
__all__ = [
    "Checkpoint",
    "Comparison",
    "Data",
    "HessrankError",
    "LoadedModel",
    "Policy",
    "QuantizedModel",
    "Ranking",
    "TrainResult",
    "Verification",
    "allocate",
    "compare",
    "compare_policies",
    "export_onnx",
    "load_data",
    "load_model",
    "load_trained",
    "make_policy",
    "prepare",
    "rank",
    "save_checkpoint",
    "summarize",
    "train",
    "trusting_sizes",
    "verify",
]

_PLACES = {
    "Checkpoint": "hessrank.analysis.checkpoint",
    "Comparison": "hessrank.analysis.compare",
    "compare": "hessrank.analysis.compare",
    "Data": "hessrank.analysis.data",
    "load_data": "hessrank.analysis.data",
    "LoadedModel": "hessrank.analysis.loading",
    "load_model": "hessrank.analysis.loading",
    "save_checkpoint": "hessrank.analysis.loading",
    "rank": "hessrank.analysis.rank",
    "Ranking": "hessrank.analysis.ranking",
    "Verification": "hessrank.analysis.verify",
    "verify": "hessrank.analysis.verify",
    "TrainResult": "hessrank.distill.training.result",
    "train": "hessrank.distill.training.train",
    "load_trained": "hessrank.distill.training.trained",
    "trusting_sizes": "hessrank.limits",
    "allocate": "hessrank.quant.allocation",
    "compare_policies": "hessrank.quant.alternatives",
    "export_onnx": "hessrank.quant.export",
    "make_policy": "hessrank.quant.make_policy",
    "Policy": "hessrank.quant.policy",
    "QuantizedModel": "hessrank.quant.prepare",
    "prepare": "hessrank.quant.prepare",
    "summarize": "hessrank.quant.summary",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'hessrank' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
