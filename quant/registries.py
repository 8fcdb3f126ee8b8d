"""Find strategies, methods and observers by name.

One registry a sort, each with the modules of the built-in ones.

A policy, a command's help and an error message ask here which names there are; that imports no module of the tables.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hessrank.plugins import Registry

_STRATEGIES = "hessrank.quant.bit_choice.strategies"
_QUANTIZERS = "hessrank.quant.quantizers"

STRATEGIES: Registry[Callable[..., Any]] = Registry(
    "strategy",
    {
        "sensitive-ends": f"{_STRATEGIES}.sensitive_ends",
        "top-k": f"{_STRATEGIES}.selection",
        "threshold": f"{_STRATEGIES}.selection",
        "budget": f"{_STRATEGIES}.budget",
        "uniform": f"{_STRATEGIES}.controls",
        "middle": f"{_STRATEGIES}.controls",
    },
)
"""Strategies: each takes a ``Problem`` and its own options as keywords, and returns a ``BitChoice``."""

DISTILLATIONS: Registry[Callable[..., list[str]]] = Registry(
    "distillation strategy",
    dict.fromkeys(["penultimate", "top-trace", "head", "middle", "tail", "none"], f"{_STRATEGIES}.hint_layers"),
)
"""What chooses hint layers: each takes a ``Problem`` and a count, and returns names of layers."""

QUANTIZERS: Registry[type[Any]] = Registry(
    "quantization method",
    {
        "fixed": f"{_QUANTIZERS}.fixed",
        "lsq": f"{_QUANTIZERS}.lsq",
        "lsq+": f"{_QUANTIZERS}.lsq_plus",
        "dsq": f"{_QUANTIZERS}.dsq",
        "pact": f"{_QUANTIZERS}.pact",
        "dorefa": f"{_QUANTIZERS}.dorefa",
    },
)
"""Methods of fake quantization: subclasses of ``Quantizer``."""

OBSERVERS: Registry[type[Any]] = Registry(
    "observer",
    {
        "minmax": f"{_QUANTIZERS}.observers",
        "moving-average": f"{_QUANTIZERS}.observers",
        "percentile": f"{_QUANTIZERS}.histogram_observers",
        "mse": f"{_QUANTIZERS}.histogram_observers",
        "mean-magnitude": f"{_QUANTIZERS}.observers",
    },
)
"""What finds the range of a tensor: subclasses of ``Observer``."""

POLICY_HOLDERS: Registry[type[Any]] = Registry("file", {"run": "hessrank.distill.run_file.keys"})
"""Models of files that may hold a policy too: their keys are let stand beside it. Whoever reads one registers it."""
