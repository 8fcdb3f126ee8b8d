"""The policy file: reading, writing, what it means for a network."""

from hessrank.quant.policy.check import Finding, check, require
from hessrank.quant.policy.errors import PolicyError
from hessrank.quant.policy.model import INPUT_LAYER, Policy
from hessrank.quant.policy.resolution import Resolution, Setting, excluded_layers, policy_points, resolve
from hessrank.quant.policy.schema import policy_schema
from hessrank.quant.policy.sections import LayerBits, QConfig, QuantizerConfig

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
    "policy_points",
    "policy_schema",
    "require",
    "resolve",
]
