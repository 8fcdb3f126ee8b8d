"""Finds each layer's range and rounding error in two forward passes a sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hessrank.analysis.ranking_inputs import RankingInputs
from hessrank.analysis.rounding.quantize import measure_activation_errors
from hessrank.analysis.sampling.resumable_pass import Journal
from hessrank.data.batch import Batch
from hessrank.distributed import Team
from hessrank.network.layer_facts import LayerFacts
from hessrank.network.layer_survey import find_ranges, mask_by_fills
from hessrank.network.network import Network


class RoundingErrors:
    """The rounding errors of each layer, by bit-width and sample.

    It is a :class:`hessrank.analysis.sampling.resumable_pass.Table`.

    Attributes:
        errors: ‖Q(a) − a‖²/n, shape (layers, bits, samples).
        wiped: share of the elements other than 0 that round to 0, of the same shape.
    """

    def __init__(self, network: Network, facts: Mapping[str, LayerFacts], bits: Sequence[int], samples: int) -> None:
        """Start with nothing; the ranges go into ``facts``."""
        self._network, self._facts, self._bits = network, dict(facts), tuple(bits)
        self.errors = np.zeros((len(network.layers), len(self._bits), samples))
        self.wiped = np.zeros_like(self.errors)
        mask_by_fills(network, self._facts)

    def look(self, batch: Batch) -> None:
        """Widen the ranges by the layers' values on ``batch``."""
        find_ranges(self._network, batch, self._facts)

    def measure(self, batch: Batch) -> None:
        """Measure the rounding error of every layer, whose range must be known by now."""
        errors, wiped = measure_activation_errors(self._network, batch, self._facts, self._bits)
        self.errors[:, :, list(batch.samples)] = errors.numpy()
        self.wiped[:, :, list(batch.samples)] = wiped.numpy()

    def share(self, team: Team) -> None:
        """Take each process's samples from that process, and the widest ranges."""
        state = self.state()
        self.restore(
            {
                "errors": team.gather(self.errors, 2),
                "wiped": team.gather(self.wiped, 2),
                "low": team.reduce_min(state["low"]),
                "high": team.reduce_max(state["high"]),
                "masked": team.reduce_max(state["masked"]),
            }
        )

    def state(self) -> dict[str, NDArray[Any]]:
        """Return all that is known."""
        facts = [self._facts[name] for name in self._names()]
        return {
            "errors": self.errors,
            "wiped": self.wiped,
            "low": np.array([fact.low for fact in facts]),
            "high": np.array([fact.high for fact in facts]),
            "masked": np.array([-np.inf if f.axis.masked is None else f.axis.masked for f in facts]),
        }

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Know what :meth:`state` returned."""
        self.errors, self.wiped = state["errors"], state["wiped"]
        columns = (state[key].tolist() for key in ("low", "high", "masked"))
        for name, low, high, masked in zip(self._names(), *columns, strict=True):
            self._facts[name].low, self._facts[name].high = low, high
            if masked > -np.inf:
                self._facts[name].mask(masked)

    def _names(self) -> list[str]:
        return [layer.name for layer in self._network.layers]


def measure_rounding_errors(inputs: RankingInputs, journal: Journal, bits: Sequence[int]) -> RoundingErrors:
    """Find every layer's range over all samples, then its rounding error on each.

    Args:
        inputs: what is ranked; its ``facts`` learn the ranges.
        journal: keeps what is found, as the stage ``ranges``.
        bits: the bit-widths.
    """
    batches = inputs.batches
    found = RoundingErrors(inputs.network, inputs.facts, bits, len(batches))
    stage = journal.open("ranges", batches, {"errors": found})
    stage.run([found.look, found.measure], journal.report_on("ranges", 2 * len(batches)))
    return found
