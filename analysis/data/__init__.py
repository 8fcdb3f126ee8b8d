"""What ``--data`` means: arrays, images, RAW files, a user's own loader or random numbers, by index."""

from hessrank.analysis.data.load import load_data
from hessrank.analysis.data.source import Data

__all__ = ["Data", "load_data"]
