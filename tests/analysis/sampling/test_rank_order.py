"""How far replicates settle an order."""

from __future__ import annotations

import numpy as np

from hessrank.analysis.sampling.rank_order import RankOrder

RNG = np.random.default_rng(0)


def test_exact_values_are_in_order() -> None:
    order = RankOrder.judge(np.array([[1.0], [2.0]]), np.zeros(2), 0.1, certain=True)
    assert order.settled.all()
    assert order.open_pairs == 0


def test_far_apart_is_settled_and_close_is_open() -> None:
    noise = RNG.standard_normal((3, 64))
    order = RankOrder.judge(np.array([[100.0], [10.0], [10.1]]) + noise, np.ones(3), tolerance=0.01)
    assert order.settled.tolist() == [True, False, False]
    assert order.open_pairs == 1
    assert order.within_reach


def test_what_does_not_matter_is_settled_too() -> None:
    noise = RNG.standard_normal((2, 64))
    assert RankOrder.judge(np.array([[100.0], [100.5]]) + noise, np.ones(2), tolerance=0.1).settled.all()


def test_noise_that_no_probe_removes_is_out_of_reach() -> None:
    values = np.array([[10.0], [10.1]]) + RNG.standard_normal((2, 64))
    order = RankOrder.judge(values, np.zeros(2), tolerance=0.01)
    assert order.open_pairs == 1
    assert not order.within_reach
