"""Rules that make a policy of a ranking, by name."""

from hessrank.quant.strategies import budget as _budget
from hessrank.quant.strategies import controls as _controls
from hessrank.quant.strategies import selection as _selection
from hessrank.quant.strategies import sensitive_ends as _sensitive_ends
from hessrank.quant.strategies.base import STRATEGIES, Choice, Problem, Strategy
from hessrank.quant.strategies.distillation import DISTILLATIONS, choose_hints

_REGISTERED = (_budget, _controls, _selection, _sensitive_ends)  # importing them is what registers them

__all__ = ["DISTILLATIONS", "STRATEGIES", "Choice", "Problem", "Strategy", "choose_hints"]
