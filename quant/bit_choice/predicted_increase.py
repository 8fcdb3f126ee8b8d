"""Read the predicted increase of every tensor and width off a ranking.

Errors of different tensors are taken for independent, so a policy's increase is the sum of its tensors'. Where
several tensors share one grid, each one's error grows with the square of the common step over its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hessrank.analysis.result.ranking import Ranking
from hessrank.errors import ModelError, OptionError
from hessrank.quant.layer_graph.graph import Graph
from hessrank.quant.layer_graph.quantizer_placement import QuantizerPlacement
from hessrank.quant.scheme import MAX_BITS, MIN_BITS


@dataclass(frozen=True)
class Predicted:
    """Predicted increases, in units of the loss.

    Attributes:
        bits: the bit-widths, ascending.
        weights: for each weight, the increase at each of ``bits``.
        grids: for each grid, the increase at each of ``bits``, summed over the tensors that share it.
    """

    bits: tuple[int, ...]
    weights: Mapping[str, NDArray[np.float64]]
    grids: Mapping[str, NDArray[np.float64]]

    def at(self, bits: int) -> int:
        """Return where in ``bits`` a bit-width stands.

        Raises:
            OptionError: the ranking holds no prediction for it.
        """
        if not MIN_BITS <= bits <= MAX_BITS:
            raise OptionError(f"{bits} bits: bit-widths run from {MIN_BITS} to {MAX_BITS}")
        if bits not in self.bits:
            known = ", ".join(map(str, self.bits))
            raise OptionError(
                f"the ranking predicts nothing for {bits} bits, only for {known}: "
                f"rank again with --bits {bits},{','.join(map(str, self.bits))}"
            )
        return self.bits.index(bits)

    def total(self, weights: Mapping[str, int], grids: Mapping[str, int]) -> float:
        """Return the increase of a whole policy, given the bits of every weight and grid."""
        of_weights = sum(float(self.weights[name][self.at(bits)]) for name, bits in weights.items())
        return of_weights + sum(float(self.grids[name][self.at(bits)]) for name, bits in grids.items())


def predict(ranking: Ranking, graph: Graph, placement: QuantizerPlacement) -> Predicted:
    """Collect what a ranking predicts for the weights and grids of its network.

    A negative increase (a loss that is not at its minimum) counts by its size: no policy should bet on it.

    Args:
        ranking: with the columns ``act_increase_b…`` and ``weight_increase_b…``.
        graph: the ranking's network.
        placement: what is quantized.

    Raises:
        ModelError: the ranking was made without the traces of the weights.
    """
    frame = ranking.to_frame().set_index("layer")
    bits = sorted(int(c.removeprefix("act_increase_b")) for c in frame.columns if c.startswith("act_increase_b"))
    activations = _table(frame, [f"act_increase_b{b}" for b in bits])
    weights = _table(frame, [f"weight_increase_b{b}" for b in bits])
    found = {}
    for weight, layers in placement.weights.items():
        rows = [weights[layer] for layer in layers if not np.isnan(weights[layer]).any()]
        if not rows:
            raise ModelError(
                f"the ranking has no trace of the weight of {layers[0]!r}: rank again without --no-weights"
            )
        found[weight] = np.abs(rows[0])
    return Predicted(tuple(bits), found, _grid_increases(graph, placement, activations))


def _table(frame: pd.DataFrame, columns: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    values = frame[list(columns)].to_numpy(dtype=np.float64)
    return dict(zip(map(str, frame.index), values, strict=True))


def _grid_increases(
    graph: Graph, placement: QuantizerPlacement, activations: Mapping[str, NDArray[np.float64]]
) -> dict[str, NDArray[np.float64]]:
    """Sum the increases of the tensors on every grid.

    A tensor's own counts times the square of how much longer the common step is.
    """
    found = {}
    for grid in placement.grids:
        members = [graph[name] for name in placement.members(grid)]
        common = max(0.0, *(m.high for m in members)) - min(0.0, *(m.low for m in members))
        spans = [max(m.high, 0.0) - min(m.low, 0.0) for m in members]
        longer = [common / span if span > 0 else 1.0 for span in spans]
        found[grid] = np.sum(
            [np.abs(activations[m.name]) * f**2 for m, f in zip(members, longer, strict=True)], axis=0
        )
    return found
