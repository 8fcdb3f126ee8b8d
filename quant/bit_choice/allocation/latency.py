"""A user's table of measured latencies, as a limit for the allocator.

CSV with the columns ``layer, bits, latency`` (a kernel runs at the wider of its two widths, weight and input) or
``layer, weight_bits, act_bits, latency``. Latencies are in any unit, the same as the limit's; the network's is their
sum. Each layer with a weight and MACs has rows; 32 bits are float. A combination without a row is one that the
hardware does not have: it is not chosen.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from hessrank.errors import OptionError, nearest_first
from hessrank.files.paths import readable_file
from hessrank.quant.bit_choice.allocation.allocate import Limit, PairCost
from hessrank.quant.bit_choice.allocation.policy_cost import Product, decisions, products
from hessrank.quant.layer_graph.graph import Graph
from hessrank.quant.layer_graph.quantizer_placement import QuantizerPlacement
from hessrank.quant.scheme import FLOAT_BITS, MAX_BITS, MIN_BITS
from hessrank.text import DOTS, listed, one_line

Floats = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
Table = Mapping[tuple[str, int, int], float]
_SHORTEST, _LONGEST = 1e-12, 1e12  # in any unit; far beyond, the allocator's sums overflow
_SHAPES = (["layer", "bits", "latency"], ["layer", "weight_bits", "act_bits", "latency"])


def read_latency(path: str | Path, graph: Graph) -> Table:
    """Read a table: latency by layer, weight bits and activation bits.

    Raises:
        OptionError: not such a file, or a row that makes no sense, with its line.
    """
    wanted = [node.name for node in graph.nodes.values() if node.weight is not None and node.macs]
    table: dict[tuple[str, int, int], float] = {}
    for place, row in _rows(Path(path)):
        layer = row["layer"]
        if layer not in wanted:
            raise OptionError(f"{place}: no layer with a weight named {layer!r}; {_nearest(layer, wanted)}")
        latency = _latency(row["latency"], place)
        keys = [(layer, *pair) for pair in _widths(row, place)]
        if any(key in table for key in keys):
            raise OptionError(f"{place}: a second row for {layer!r} at these bits: keep one")
        table |= dict.fromkeys(keys, latency)
    given = {layer for layer, _, _ in table}
    for layer in wanted:
        if layer not in given:
            raise OptionError(f"{path}: no row for layer {layer!r}; {_nearest(layer, given)}")
    return table


def latency_limit(
    table: Table, graph: Graph, placement: QuantizerPlacement, widths: Sequence[int], most: float = np.inf
) -> Limit:
    """Return the limit on the sum of latencies, for options that are ``widths``.

    Raises:
        OptionError: a layer has no row for any combination of widths that it may get.
    """
    linear, constant, pairs = np.zeros((len(decisions(placement)), len(widths))), 0.0, []
    for product in products(graph, placement):
        if graph[product.layer].weight is None:
            continue
        times = _times(product, table, widths)
        if product.first is not None and product.second is not None:
            pairs.append(PairCost(product.first, product.second, times))
        elif product.first is not None:
            linear[product.first] += times[:, 0]
        elif product.second is not None:
            linear[product.second] += times[0]
        else:
            constant += float(times[0, 0])
    return Limit("latency", most, linear, tuple(pairs), constant)


def _times(product: Product, table: Table, widths: Sequence[int]) -> Floats:
    """Return a layer's latencies, weight widths × input widths.

    Where one is not quantized, its width is 32.
    """
    own = [FLOAT_BITS] if product.first is None else widths
    read = [FLOAT_BITS] if product.second is None else widths
    times = np.array([[table.get((product.layer, w, a), np.inf) for a in read] for w in own])
    if not np.isfinite(times).any():
        asked = " × ".join("/".join(str(width) for width in some) for some in (own, read))
        raise OptionError(f"the latency table has no row for {product.layer!r} at {asked} bits (weight × input)")
    return times


def _nearest(name: str, known: Sequence[str] | set[str]) -> str:
    ordered = nearest_first(name, sorted(known))
    return f"nearest is {ordered[0]!r}" if ordered else "there are none"


def _rows(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield place (``table.csv:3``) and cells of each row."""
    path = readable_file(path, error=OptionError)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"{path}: cannot be read as a CSV table: {one_line(error)}") from error
    reader = csv.reader(lines, skipinitialspace=True)
    header = [cell.strip() for cell in next(reader, [])]
    if header not in _SHAPES:
        shapes = " or ".join(", ".join(shape) for shape in _SHAPES)
        raise OptionError(
            f"{path}:1: the columns are {listed(header, rest=DOTS) or 'missing'}; they must be {shapes}"
        )
    for cells in reader:
        place = f"{path}:{reader.line_num}"
        if not cells:
            continue
        if len(cells) != len(header):
            raise OptionError(f"{place}: {len(cells)} cells, but {len(header)} columns")
        yield place, dict(zip(header, (cell.strip() for cell in cells), strict=True))


def _latency(text: str, place: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise OptionError(f"{place}: latency {text!r} is not a number that is 0 or more")
    if value and not _SHORTEST <= value <= _LONGEST:
        raise OptionError(f"{place}: latency {text!r} is not from {_SHORTEST:g} to {_LONGEST:g}: take another unit")
    return value


def _widths(row: Mapping[str, str], place: str) -> list[tuple[int, int]]:
    """Return the pairs of weight bits and activation bits that a row stands for."""
    if "bits" not in row:
        return [(_bits(row["weight_bits"], place), _bits(row["act_bits"], place))]
    wide = _bits(row["bits"], place)
    narrow = [width for width in (*range(MIN_BITS, MAX_BITS + 1), FLOAT_BITS) if width < wide]
    return [(wide, wide), *((wide, width) for width in narrow), *((width, wide) for width in narrow)]


def _bits(text: str, place: str) -> int:
    if text.isdecimal() and (MIN_BITS <= int(text) <= MAX_BITS or int(text) == FLOAT_BITS):
        return int(text)
    raise OptionError(f"{place}: {text!r} bits: widths run from {MIN_BITS} to {MAX_BITS}, {FLOAT_BITS} for float")
