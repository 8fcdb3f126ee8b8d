"""What ``--data`` means: arrays, images, RAW files, a user's own loader or random numbers, by index."""

from hessrank.data.data_source import Data
from hessrank.data.load import load_data

__all__ = ["Data", "load_data"]
