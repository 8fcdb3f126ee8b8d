"""Fake-quantizers: observers and methods, by name."""

from hessrank.quant.quantizers.base import Quantizer, make_quantizer
from hessrank.quant.quantizers.dorefa import DoReFa
from hessrank.quant.quantizers.dsq import DSQ
from hessrank.quant.quantizers.fixed import Fixed
from hessrank.quant.quantizers.grids import Grid
from hessrank.quant.quantizers.histogram_observers import MeanSquaredError, Percentile
from hessrank.quant.quantizers.lsq import LSQ
from hessrank.quant.quantizers.lsq_plus import LSQPlus
from hessrank.quant.quantizers.observers import MeanMagnitude, MinMax, MovingAverage, Observer
from hessrank.quant.quantizers.pact import PACT
from hessrank.quant.registries import OBSERVERS, QUANTIZERS

__all__ = [
    "DSQ",
    "LSQ",
    "OBSERVERS",
    "PACT",
    "QUANTIZERS",
    "DoReFa",
    "Fixed",
    "Grid",
    "LSQPlus",
    "MeanMagnitude",
    "MeanSquaredError",
    "MinMax",
    "MovingAverage",
    "Observer",
    "Percentile",
    "Quantizer",
    "make_quantizer",
]
