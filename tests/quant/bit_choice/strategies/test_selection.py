"""The most sensitive kernels: so many of them, or all above a threshold."""

from __future__ import annotations

import pytest
from helpers.hand_graphs import U_NET, ranking_of

from hessrank.errors import OptionError, UnknownNameError
from hessrank.quant.bit_choice.strategies import Problem
from hessrank.quant.bit_choice.strategies.selection import threshold, top_k

PROBLEM = Problem.of(ranking_of(U_NET, {"x": 1.0, "relu1": 0.1, "up": 0.5, "relu2": 4.0, "out": 2.0}, {"conv1": 9.0}))


def test_top_k_counts_a_kernels_weight_and_tensor_together() -> None:
    """At 4 bits: relu1's kernel 9 + 0.1 + 0.5 (up shares its grid), relu2's 4, out 2, x 1."""
    assert set(top_k(PROBLEM, count=1, base_bits=4).why) == {"conv1", "relu1"}
    assert set(top_k(PROBLEM, count=2, base_bits=4).why) == {"conv1", "relu1", "conv2", "relu2"}


def test_top_k_by_trace_looks_at_the_kernels_tensor() -> None:
    assert set(top_k(PROBLEM, count=1, by="trace").why) == {"conv2", "relu2"}


def test_threshold_takes_all_above() -> None:
    assert set(threshold(PROBLEM, above=1.5, base_bits=4).why) == {"conv1", "relu1", "conv2", "relu2", "out"}
    assert threshold(PROBLEM, above=1e9).why == {}


def test_what_is_chosen_gets_the_high_bits() -> None:
    choice = top_k(PROBLEM, count=1, high_bits=10, base_bits=4)
    assert dict(choice.weights) == {"conv1.weight": 10}
    assert dict(choice.grids) == {"relu1": 10}
    assert choice.all_grids(PROBLEM.placement) == {"x": 4, "relu1": 10, "relu2": 4, "out": 4}


def test_a_missing_threshold_says_how_large_the_values_are() -> None:
    with pytest.raises(OptionError, match=r"reach up to 9\.6"):
        threshold(PROBLEM, base_bits=4)


def test_an_unknown_measure_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="nearest is 'mean_trace'"):
        top_k(PROBLEM, by="meantrace")


def test_no_kernels_is_refused() -> None:
    with pytest.raises(OptionError, match="1 or more"):
        top_k(PROBLEM, count=0)
