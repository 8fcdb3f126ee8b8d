"""Rules that make a policy of a ranking, by name."""

from hessrank.quant.bit_choice.strategies import budget as _budget
from hessrank.quant.bit_choice.strategies import controls as _controls
from hessrank.quant.bit_choice.strategies import selection as _selection
from hessrank.quant.bit_choice.strategies import sensitive_ends as _sensitive_ends
from hessrank.quant.bit_choice.strategies.hint_layers import DISTILLATIONS, choose_hints
from hessrank.quant.bit_choice.strategies.problem import STRATEGIES, Choice, Problem, Strategy

_REGISTERED = (_budget, _controls, _selection, _sensitive_ends)  # importing them is what registers them

__all__ = ["DISTILLATIONS", "STRATEGIES", "Choice", "Problem", "Strategy", "choose_hints"]
