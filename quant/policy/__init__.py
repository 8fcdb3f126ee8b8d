"""The policy file: reading, writing, what it means for a network."""

from typing import TYPE_CHECKING

from hessrank.quant.policy.check import Finding, check, require
from hessrank.quant.policy.errors import PolicyError
from hessrank.quant.policy.model import INPUT_LAYER, Policy
from hessrank.quant.policy.resolution import Resolution, Setting, excluded_layers, place_policy_quantizers, resolve
from hessrank.quant.policy.schema import policy_schema
from hessrank.quant.policy.sections import LayerBits, QConfig, QuantizerConfig
from hessrank.renamed import renamed_names

__all__ = [
    "INPUT_LAYER",
    "Finding",
    "LayerBits",
    "Policy",
    "PolicyError",
    "QConfig",
    "QuantizerConfig",
    "Resolution",
    "Setting",
    "check",
    "excluded_layers",
    "place_policy_quantizers",
    "policy_schema",
    "require",
    "resolve",
]

if not TYPE_CHECKING:  # to which every name would then be known
    __getattr__ = renamed_names(__name__, globals(), policy_points="place_policy_quantizers")
