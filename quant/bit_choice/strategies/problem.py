"""What a strategy is given and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pandas as pd

from hessrank.analysis.result.ranking import Ranking
from hessrank.errors import ModelError, OptionError
from hessrank.network.sub_networks import SubNetwork, sub_networks
from hessrank.quant.bit_choice.predicted_increase import Predicted, predict
from hessrank.quant.layer_graph.graph import Graph
from hessrank.quant.layer_graph.integer_kernels import IntegerKernel, IntegerKernels
from hessrank.quant.layer_graph.layer_kinds import is_join, passes_grid_on
from hessrank.quant.layer_graph.quantizer_placement import QuantizerPlacement, place_quantizers
from hessrank.renamed import renamed_names, warn_renamed


@dataclass(frozen=True)
class Problem:
    """A ranked network, for strategies to decide about.

    Attributes:
        ranking: the ranking.
        graph: its network.
        placement: what is quantized in it.
    """

    ranking: Ranking
    graph: Graph
    placement: QuantizerPlacement

    @classmethod
    def of(cls, ranking: Ranking) -> Problem:
        """Read a problem off a ranking.

        Raises:
            OptionError: it is no ranking.
            ModelError: it holds no graph, one of a network that cannot be, or one in which nothing can be quantized.
        """
        if not isinstance(ranking, Ranking):
            raise OptionError(f"a {type(ranking).__name__} is no ranking: hessrank.Ranking.read(path) reads one")
        graph = Graph.of_ranking(ranking)
        for node in graph.nodes.values():
            if node.weight is not None and (passes_grid_on(node) or is_join(node)):
                raise ModelError(
                    f"the ranking's record says that {node.name!r}, a {node.kind}, multiplies with a weight, which "
                    "none does: rank again"
                )
        placement = place_quantizers(graph)
        if not placement.grids:
            untraced = all(node.inside for node in graph.nodes.values())
            why = "torch.fx cannot trace it (hessrank check names the line)" if untraced else "no layer has a grid"
            raise ModelError(f"nothing in this network can be quantized: {why}")
        return cls(ranking, graph, placement)

    @property
    def points(self) -> QuantizerPlacement:
        """The old name of ``placement``."""
        warn_renamed("Problem.points", "placement")
        return self.placement

    @cached_property
    def predicted(self) -> Predicted:
        """What every tensor costs in loss at every bit-width."""
        return predict(self.ranking, self.graph, self.placement)

    @cached_property
    def kernels(self) -> IntegerKernels:
        """The units that a strategy chooses among."""
        return IntegerKernels.of(self.graph, self.placement)

    @cached_property
    def sub_networks(self) -> list[SubNetwork]:
        """The parts with their own input or output."""
        return sub_networks(self.graph)

    @cached_property
    def rows(self) -> Mapping[str, Mapping[str, Any]]:
        """The ranking's rows by layer."""
        frame: pd.DataFrame = self.ranking.to_frame()
        rows: list[Any] = frame.to_dict("records")
        return {str(row["layer"]): row for row in rows}

    @cached_property
    def other_parameters(self) -> int:
        """How many parameters the graph does not know of.

        In older rankings all that are no layer's weight.
        """
        if self.graph.stored is not None:
            return 0
        known = {node.weight: node.weight_numel for node in self.graph.nodes.values() if node.weight is not None}
        total = int(self.ranking.info.get("model", {}).get("parameters", 0))
        return max(0, total - sum(known.values()))

    def increase(self, kernel: IntegerKernel, bits: int) -> float:
        """Predict the increase if one kernel had so many bits.

        Its weight and its tensor together.
        """
        place = self.predicted.at(bits)
        of_weight = 0.0 if kernel.weight is None else float(self.predicted.weights[kernel.weight][place])
        return of_weight + (0.0 if kernel.grid is None else float(self.predicted.grids[kernel.grid][place]))


@dataclass(frozen=True)
class BitChoice:
    """What a strategy decided.

    Attributes:
        base_bits: for all that is not named below.
        weights: bits of weights.
        grids: bits of grids.
        why: for a weight's or a grid's layers, what a reader should know; by layer name.
        otherwise: the same for all layers that are not in ``why``.
        notes: what to tell the user.
    """

    base_bits: int
    weights: Mapping[str, int]
    grids: Mapping[str, int]
    why: Mapping[str, str] = field(default_factory=dict)
    otherwise: str = ""
    notes: tuple[str, ...] = ()

    def all_weights(self, placement: QuantizerPlacement) -> dict[str, int]:
        """Return the bits of every weight."""
        return {name: self.weights.get(name, self.base_bits) for name in placement.weights}

    def all_grids(self, placement: QuantizerPlacement) -> dict[str, int]:
        """Return the bits of every grid.

        What an addition ties together has the most bits of them all.
        """
        bits = {name: self.grids.get(name, self.base_bits) for name in placement.grids}
        for group in placement.tied:
            bits.update(dict.fromkeys(group, max(bits[name] for name in group)))
        return bits

    def settled(self, placement: QuantizerPlacement) -> BitChoice:
        """Return the same choice with the bits of every weight and grid written out."""
        return replace(self, weights=self.all_weights(placement), grids=self.all_grids(placement))


Strategy = Callable[..., BitChoice]
"""Decides bits: takes a :class:`Problem` and its own options as keyword arguments with defaults."""

if not TYPE_CHECKING:  # to which every name would then be known
    __getattr__ = renamed_names(__name__, globals(), Choice="BitChoice")
