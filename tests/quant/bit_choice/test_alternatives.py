"""A policy beside uniform bits and the best bits for its BOPs."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from helpers.hand_graphs import BITS, RESIDUAL, U_NET, ranking_of

import hessrank
from hessrank import Policy, Ranking, compare_policies, make_policy, summarize
from hessrank.errors import OptionError
from hessrank.quant.bit_choice.allocation import Bits
from hessrank.quant.bit_choice.allocation.policy_cost import decisions, ties
from hessrank.quant.bit_choice.alternatives import _widest
from hessrank.quant.bit_choice.strategies import Problem
from hessrank.quant.bit_choice.summary import cost_of, settle_bits
from hessrank.quant.layer_graph.graph import Graph
from hessrank.quant.policy import PolicyError

NAMES = ["this policy", "uniform 8", "uniform at the same BOPs", "budget at the same BOPs"]


def ranked(made: Graph = U_NET, bits: tuple[int, ...] = BITS) -> Ranking:
    """Return a ranking with MACs, in which the ends matter most; with some of the bit-widths."""
    nodes = [replace(n, numel=10, macs=100 if n.weight else 0) for n in made.nodes.values()]
    increases = {node.name: 2.0**-i for i, node in enumerate(nodes)}
    ranking = ranking_of(Graph.of(nodes, made.outputs), increases, dict.fromkeys(made.nodes, 0.1))
    gone = [f"{kind}_increase_b{b}" for kind in ("act", "weight") for b in BITS if b not in bits]
    return Ranking(ranking.to_frame().drop(columns=gone), ranking.info)


def test_the_rows_are_what_they_say() -> None:
    ranking = ranked()
    policy = make_policy(ranking, "top-k", count=2, base_bits=4, high_bits=10)
    own, eight, uniform, budget = compare_policies(policy, ranking).rows
    assert [row.policy for row in (own, eight, uniform, budget)] == NAMES
    told = summarize(policy, ranking)
    assert (own.costs, own.increase) == (told.costs, told.increase)
    assert 36 * 400 <= told.costs.bops < 64 * 400  # of 400 MACs: 6 bits fit, 8 do not
    for row, width in ((eight, 8), (uniform, 6)):
        same = summarize(make_policy(ranking, "uniform", base_bits=width), ranking)
        assert (row.costs, row.increase) == (same.costs, same.increase)
    assert told.costs.bops >= budget.costs.bops  # type: ignore[union-attr]
    assert budget.increase <= own.increase  # type: ignore[operator]


def test_the_best_for_the_same_bops_is_that_of_all_choices() -> None:
    ranking = ranked(RESIDUAL, (4, 6, 8, 10))
    policy = make_policy(ranking, "top-k", count=2, base_bits=4, high_bits=8)
    problem = Problem.of(ranking)
    most, count = summarize(policy, ranking).costs.bops, len(decisions(problem.placement))
    tied = ties(problem.placement)
    free = [i for i in range(count) if all(i not in group[1:] for group in tied)]
    best = float("inf")
    for widths in itertools.product((4, 6, 8, 10), repeat=len(free)):
        chosen = dict(zip(free, widths, strict=True))
        chosen |= {i: chosen[group[0]] for group in tied for i in group[1:]}
        bits = Bits.of(problem.placement, [chosen[i] for i in range(count)])
        increase = problem.predicted.total(bits.weights, bits.grids)
        if increase < best and cost_of(problem, bits).bops <= most:
            best = increase
    found = compare_policies(policy, ranking).rows[-1].increase
    assert found == pytest.approx(best, rel=1.1e-3)


def test_a_row_that_cannot_be_had_says_why() -> None:
    ranking = ranked(bits=(4, 6))
    least = make_policy(ranking, "uniform", base_bits=4)
    rows = compare_policies(least, ranking).rows
    assert "the ranking predicts nothing for 8 bits, only for 4, 6: rank again" in rows[1].why_not
    assert rows[2].costs == rows[0].costs
    assert rows[3].costs.bops == rows[0].costs.bops  # type: ignore[union-attr]
    text = str(compare_policies(least, ranking))
    assert "uniform 8: the ranking predicts nothing for 8 bits" in " ".join(text.split())


def test_a_policy_that_quantizes_nothing_is_compared_too() -> None:
    ranking = ranked(bits=(4, 6, 8))
    policy = Policy.of(
        {
            "extra_qconfig_dict": {"w_qscheme": {"bit": 4}, "a_qscheme": {"bit": 4}},
            "extra_quantizer_dict": {"exclude_node_name": list(U_NET.nodes)},
        }
    )
    rows = compare_policies(policy, ranking).rows
    assert rows[-1].why_not == "the policy quantizes nothing"
    assert rows[1].costs == rows[0].costs


def test_other_rows_quantize_what_the_policy_quantizes() -> None:
    ranking = ranked()
    policy = Policy.of({"extra_quantizer_dict": {"exclude_node_name": ["conv2"]}})
    rows = compare_policies(policy, ranking).rows
    assert all(row.costs is not None and row.costs.quantized_weights < 1 for row in rows)
    one_scale = Policy.of({"extra_qconfig_dict": {"w_qscheme": {"bit": 8, "per_channel": False}}})
    assert summarize(one_scale, ranking).costs.size_mib == compare_policies(one_scale, ranking).rows[1].costs.size_mib  # type: ignore[union-attr]


def test_where_no_uniform_width_is_within_the_bops_the_least_possible_is_told() -> None:
    ranking = ranked()
    policy = Policy.of({"extra_qconfig_dict": {"w_qscheme": {"bit": 2}, "a_qscheme": {"bit": 2}}})
    narrow = Ranking(ranking.to_frame().drop(columns=["act_increase_b2", "weight_increase_b2"]), ranking.info)
    least = compare_policies(policy, ranking).rows[0].costs
    assert least is not None
    four = compare_policies(make_policy(ranking, "uniform", base_bits=4), ranking).rows[0].costs
    assert four is not None
    problem, bits = settle_bits(make_policy(narrow, "uniform", base_bits=4), narrow)
    with pytest.raises(OptionError, match=rf"4 bits everywhere, the fewest that .* take {four.bops:.4g} BOPs"):
        _widest(problem, least.bops, bits)


def test_the_table_is_printed_and_is_a_frame() -> None:
    found = compare_policies(make_policy(ranked()), ranked())
    frame = found.to_frame()
    assert list(frame["policy"]) == NAMES
    assert {"size_mib", "bops", "mean_weight_bits", "mean_act_bits", "increase", "why_not"} <= set(frame.columns)
    lines = [line.strip() for line in str(found).splitlines() if line.strip(" ─")]
    assert lines[0].split() == ["size", "BOPs", "weight", "bits", "act", "bits", "increase"]
    assert [line.startswith(name) for line, name in zip(lines[1:], NAMES, strict=True)] == [True] * 4


def test_a_policy_for_another_network_is_refused() -> None:
    policy = Policy.of({"extra_quantizer_dict": {"special_layer": {"nowhere": {"weight": 4}}}})
    with pytest.raises(PolicyError, match="no layer named 'nowhere'"):
        compare_policies(policy, ranked())
    assert hessrank.compare_policies is compare_policies
