"""The torch.fx pass that makes a model obey a policy."""

from hessrank.quant.prepare.model import QuantizedModel
from hessrank.quant.prepare.prepare import prepare
from hessrank.quant.prepare.state import load_state
from hessrank.quant.prepare.tracing import graph_of

__all__ = ["QuantizedModel", "graph_of", "load_state", "prepare"]
