"""Pictures of a policy and of what it was made from."""

from hessrank.quant.plots.bit_map import BitMap, bit_map, plot_bits, spread, with_room
from hessrank.quant.plots.increase_map import IncreaseMap, increase_map, plot_increase

__all__ = ["BitMap", "IncreaseMap", "bit_map", "increase_map", "plot_bits", "plot_increase", "spread", "with_room"]
