"""What a model file means: format told by content, weights put into a network, nothing run unasked."""

from hessrank.models.architecture import Architecture
from hessrank.models.load import LoadedModel, load_model
from hessrank.models.model_checkpoint import save_checkpoint

__all__ = ["Architecture", "LoadedModel", "load_model", "save_checkpoint"]
