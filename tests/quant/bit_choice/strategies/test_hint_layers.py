"""Which layers to distill."""

from __future__ import annotations

from dataclasses import replace

import pytest
from helpers.hand_graphs import TWO_STAGES, U_NET, graph, ranking_of

from hessrank.errors import OptionError, UnknownNameError
from hessrank.quant.bit_choice.strategies import DISTILLATIONS, Problem, choose_hints
from hessrank.quant.layer_graph.graph import Graph

TWO = Problem.of(ranking_of(TWO_STAGES, {}))


def test_penultimate_is_what_each_last_layer_reads_of_the_last_sub_network_first() -> None:
    assert choose_hints(TWO, "penultimate", None) == ["B.act", "A.act_dup1"]
    assert choose_hints(TWO, "penultimate", 1) == ["B.act"]


def test_head_middle_and_tail_take_turns_among_the_sub_networks() -> None:
    assert choose_hints(TWO, "head", None) == ["A.act", "B.left"]
    assert choose_hints(TWO, "tail", None) == ["A.act_dup1", "B.act"]
    assert choose_hints(TWO, "middle", 1) == ["A.act"]
    assert choose_hints(TWO, "head", 4) == ["A.act", "B.left", "A.act_dup1", "B.right"]


def test_top_trace_takes_one_a_resolution() -> None:
    """relu1 and relu2 are the most sensitive, and of one resolution; up is the best of another one."""
    shapes = {"relu1": (4, 8, 8), "relu2": (4, 8, 8), "up": (4, 16, 16)}
    nodes = [replace(node, shape=shapes.get(node.name, (1, 16, 16))) for node in U_NET.nodes.values()]
    made = Graph.of(nodes, U_NET.outputs)
    problem = Problem.of(ranking_of(made, {"relu1": 3.0, "relu2": 4.0, "up": 1.0, "out": 9.0}))
    assert choose_hints(problem, "top-trace", None) == ["relu2", "up"]


def test_none_is_none_and_an_output_is_never_a_hint() -> None:
    assert choose_hints(TWO, "none", None) == []
    for name in DISTILLATIONS:
        assert not {"A.last", "B.last", "up"} & set(choose_hints(TWO, name, 99))


def test_an_input_is_never_a_hint() -> None:
    problem = Problem.of(ranking_of(graph("x input\na Linear*a.w x\nb Linear*b.w x", "a", "b"), {}))
    for name in DISTILLATIONS:
        assert choose_hints(problem, name, None) == []


def test_bad_names_and_counts_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="nearest is 'penultimate'"):
        choose_hints(TWO, "penultimat", None)
    with pytest.raises(OptionError, match="1 or more"):
        choose_hints(TWO, "head", 0)
