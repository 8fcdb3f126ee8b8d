"""What a model file means: format told by content, weights put into a network, nothing run unasked."""

from hessrank.analysis.loading.architecture import Architecture
from hessrank.analysis.loading.checkpoint import save_checkpoint
from hessrank.analysis.loading.load import LoadedModel, load_model

__all__ = ["Architecture", "LoadedModel", "load_model", "save_checkpoint"]
