"""Data of ``--data``: arrays, images, RAW files, a user's loader, random numbers."""

from hessrank.data.data_source import Data
from hessrank.data.load import load_data

__all__ = ["Data", "load_data"]
