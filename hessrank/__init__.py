"""Rank a network's layers by what quantization costs, and act on the ranking.

``import hessrank`` is cheap; torch is imported when a name is first used.
"""

from __future__ import annotations

import importlib
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from hessrank import moved
from hessrank.errors import HessrankError

if TYPE_CHECKING:
    from hessrank.analysis.rank import rank
    from hessrank.analysis.result.compare import Comparison, compare
    from hessrank.analysis.result.ranking import Ranking
    from hessrank.analysis.sampling.checkpoint import Checkpoint
    from hessrank.analysis.verify import Verification, verify
    from hessrank.data import Data, load_data
    from hessrank.distill.training.outputs.load_trained import load_trained
    from hessrank.distill.training.outputs.result import TrainResult
    from hessrank.distill.training.train import train
    from hessrank.files.size_limits import trusting_sizes
    from hessrank.models import LoadedModel, load_model, save_checkpoint
    from hessrank.quant.bit_choice.allocation import allocate
    from hessrank.quant.bit_choice.alternatives import compare_policies
    from hessrank.quant.bit_choice.make_policy import make_policy
    from hessrank.quant.bit_choice.summary import summarize
    from hessrank.quant.export import export_onnx
    from hessrank.quant.policy import Policy
    from hessrank.quant.prepare import QuantizedModel, prepare

__version__ = version("hessrank")
moved.install()
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
    "Checkpoint": "hessrank.analysis.sampling.checkpoint",
    "Comparison": "hessrank.analysis.result.compare",
    "compare": "hessrank.analysis.result.compare",
    "Data": "hessrank.data",
    "load_data": "hessrank.data",
    "LoadedModel": "hessrank.models",
    "load_model": "hessrank.models",
    "save_checkpoint": "hessrank.models",
    "rank": "hessrank.analysis.rank",
    "Ranking": "hessrank.analysis.result.ranking",
    "Verification": "hessrank.analysis.verify",
    "verify": "hessrank.analysis.verify",
    "TrainResult": "hessrank.distill.training.outputs.result",
    "train": "hessrank.distill.training.train",
    "load_trained": "hessrank.distill.training.outputs.load_trained",
    "trusting_sizes": "hessrank.files.size_limits",
    "allocate": "hessrank.quant.bit_choice.allocation",
    "compare_policies": "hessrank.quant.bit_choice.alternatives",
    "export_onnx": "hessrank.quant.export",
    "make_policy": "hessrank.quant.bit_choice.make_policy",
    "Policy": "hessrank.quant.policy",
    "QuantizedModel": "hessrank.quant.prepare",
    "prepare": "hessrank.quant.prepare",
    "summarize": "hessrank.quant.bit_choice.summary",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'hessrank' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
