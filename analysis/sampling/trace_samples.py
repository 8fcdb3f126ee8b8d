"""The estimates of all traces, by layer, weight and sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hessrank.analysis.estimators import EstimatorChoice
from hessrank.analysis.statistics import Array, Replicates, average_groups
from hessrank.network.weights import Weight


@dataclass(frozen=True)
class EstimatedPart:
    """The estimates of one estimator for its layers and weights.

    Attributes:
        choice: the estimator, its layers and its weights.
        deterministic: one probe gives the exact trace of a sample.
        layers: estimates of its layers' traces.
        weights: estimates of its weights' traces.
    """

    choice: EstimatorChoice
    deterministic: bool
    layers: Replicates
    weights: Replicates


@dataclass(frozen=True)
class TraceSamples:
    """Estimates of every layer's trace.

    Attributes:
        layer_names: in the order of execution.
        parts: what each estimator has found; together they have all layers.
        factors: what a trace is multiplied by to get what is ranked, shape (layers, samples).
    """

    layer_names: tuple[str, ...]
    parts: tuple[EstimatedPart, ...]
    factors: Array

    @cached_property
    def rows(self) -> Mapping[str, int]:
        """The place of every layer in the order of execution."""
        return {name: place for place, name in enumerate(self.layer_names)}

    @property
    def num_samples(self) -> int:
        """How many samples were used."""
        return int(self.factors.shape[1])

    @property
    def exact(self) -> bool:
        """Whether no trace has probe noise."""
        return all(part.deterministic for part in self.parts)

    @property
    def weights(self) -> tuple[Weight, ...]:
        """All weights whose traces were asked for."""
        return tuple(weight for part in self.parts for weight in part.choice.weights)

    def trace_replicates(self) -> Array:
        """Return replicates of every layer's trace, shape (layers, replicates)."""
        return self._assembled([part.layers.values() for part in self.parts])

    def key_replicates(self) -> Array:
        """Return replicates of what the layers are ranked by: the trace times its factor."""
        replicates = self.trace_replicates()
        fits = replicates.shape[1] == self.factors.shape[1]
        return replicates * (self.factors if fits else self.factors.mean(1, keepdims=True))

    def traces_per_sample(self) -> Array:
        """Return every layer's trace on every sample, shape (layers, samples)."""
        return self._assembled([part.layers.per_sample() for part in self.parts])

    def weight_traces_per_sample(self) -> Array:
        """Return every weight's trace by sample, shape (weights, samples), or NaN."""
        return np.concatenate([np.zeros((0, self.num_samples)), *(part.weights.per_sample() for part in self.parts)])

    def probe_share(self) -> Array:
        """Return the share of the squared standard error that more probes would remove.

        It has one entry a layer, 0 to 1.
        """
        return self._assembled([part.layers.probe_share()[:, None] for part in self.parts])[:, 0]

    def _assembled(self, tables: Sequence[Array]) -> Array:
        """Return the parts' rows in the order of execution.

        An exact value is repeated as often as there are replicates.
        """
        width = min((table.shape[1] for table in tables if table.size and table.shape[1] > 1), default=1)
        result = np.zeros((len(self.rows), width))
        for part, table in zip(self.parts, tables, strict=True):
            result[[self.rows[name] for name in part.choice.layers]] = average_groups(table, width)
        return result
