"""Rules that make a policy of a ranking, by name."""

from typing import TYPE_CHECKING

from hessrank.quant.bit_choice.strategies.hint_layers import choose_hints
from hessrank.quant.bit_choice.strategies.problem import BitChoice, Problem, Strategy
from hessrank.quant.registries import DISTILLATIONS, STRATEGIES
from hessrank.renamed import renamed_names

__all__ = ["DISTILLATIONS", "STRATEGIES", "BitChoice", "Problem", "Strategy", "choose_hints"]

if not TYPE_CHECKING:  # to which every name would then be known
    __getattr__ = renamed_names(__name__, globals(), Choice="BitChoice")
