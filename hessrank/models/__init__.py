"""Loads models: finds a file's format, fills a network, runs no code unasked."""

from hessrank.models.architecture import Architecture
from hessrank.models.load import LoadedModel, load_model
from hessrank.models.model_checkpoint import save_checkpoint

__all__ = ["Architecture", "LoadedModel", "load_model", "save_checkpoint"]
