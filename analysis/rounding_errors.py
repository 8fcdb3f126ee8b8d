"""Two looks at every sample without gradients: the range of each layer, then how far rounding to it moves it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hessrank.analysis.batches import Batch
from hessrank.analysis.damage import activation_errors
from hessrank.analysis.network import Network
from hessrank.analysis.survey import Facts, find_ranges
from hessrank.analysis.team import Team


class RoundingErrors:
    """What the samples show of each layer; see :class:`hessrank.analysis.stage.Table`.

    Attributes:
        errors: ‖Q(a) − a‖²/n, shape (layers, bits, samples).
        masked: names of the layers that hold -inf, as masked attention scores do.
    """

    def __init__(self, network: Network, facts: Mapping[str, Facts], bits: Sequence[int], samples: int) -> None:
        """Start with nothing; the ranges go into ``facts``."""
        self._network, self._facts, self._bits = network, dict(facts), tuple(bits)
        self.errors = np.zeros((len(network.layers), len(self._bits), samples))
        self.masked: set[str] = set()

    def look(self, batch: Batch) -> None:
        """Widen the ranges by what the layers take on ``batch``."""
        self.masked |= find_ranges(self._network, batch, self._facts)

    def measure(self, batch: Batch) -> None:
        """Round every layer to its range, which must be known by now."""
        found = activation_errors(self._network, batch, self._facts, self._bits)
        self.errors[:, :, list(batch.samples)] = found.numpy()

    def share(self, team: Team) -> None:
        """Take each process's samples from that process, and the widest ranges."""
        state = self.state()
        self.restore(
            {
                "errors": team.gathered(self.errors, 2),
                "low": team.lowest(state["low"]),
                "high": team.highest(state["high"]),
                "masked": team.highest(state["masked"]),
            }
        )

    def state(self) -> dict[str, NDArray[Any]]:
        """Return all that is known."""
        facts = [self._facts[name] for name in self._names()]
        return {
            "errors": self.errors,
            "low": np.array([fact.low for fact in facts]),
            "high": np.array([fact.high for fact in facts]),
            "masked": np.array([name in self.masked for name in self._names()], dtype=np.int8),
        }

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Know what :meth:`state` returned."""
        self.errors = state["errors"]
        self.masked = {name for name, is_masked in zip(self._names(), state["masked"], strict=True) if is_masked}
        for name, low, high in zip(self._names(), state["low"].tolist(), state["high"].tolist(), strict=True):
            self._facts[name].low, self._facts[name].high = low, high

    def _names(self) -> list[str]:
        return [layer.name for layer in self._network.layers]
