"""Estimates of several estimators, put together."""

from __future__ import annotations

import numpy as np

from hessrank.analysis.estimators import EstimatorChoice
from hessrank.analysis.sampling.trace_samples import EstimatedPart, TraceSamples
from hessrank.analysis.statistics import Replicates


def part(layers: tuple[str, ...], probes: list[list[list[float]]], *, deterministic: bool) -> EstimatedPart:
    found = Replicates(len(layers), 2, deterministic=deterministic)
    for values in probes:
        found.add([0, 1], np.array(values))
    choice = EstimatorChoice("exact" if deterministic else "gauss-newton", layers, (), "")
    return EstimatedPart(choice, deterministic, found, Replicates(0, 2))


def test_layers_come_in_the_order_of_execution() -> None:
    noisy = part(("c", "a"), [[[1.0, 2.0], [10.0, 20.0]], [[3.0, 2.0], [10.0, 40.0]]], deterministic=False)
    exact = part(("b",), [[[5.0, 7.0]]], deterministic=True)
    traces = TraceSamples(("a", "b", "c"), (noisy, exact), np.array([[1.0, 1.0], [1.0, 2.0], [3.0, 3.0]]))
    assert traces.traces_per_sample().tolist() == [[10, 30], [5, 7], [2, 2]]
    assert traces.key_replicates().tolist() == [[10, 30], [5, 14], [6, 6]]
    assert traces.probe_share()[1] == 0
    assert not traces.exact
    assert TraceSamples(("b",), (exact,), np.ones((1, 2))).exact
    assert traces.weights == ()
    assert traces.weight_traces_per_sample().shape == (0, 2)
