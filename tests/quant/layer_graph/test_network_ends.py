"""Sub-networks and their ends, on graphs written by hand."""

from __future__ import annotations

from helpers.hand_graphs import RESIDUAL, TWO_STAGES, U_NET, graph

from hessrank.network.sub_networks import sub_networks
from hessrank.quant.layer_graph.network_ends import before_last


def test_an_output_that_is_used_further_inside_makes_two_sub_networks() -> None:
    first, second = sub_networks(TWO_STAGES)
    assert (first.name, first.entries, first.exits) == ("A", ("A.first",), ("A.last",))
    assert (second.name, second.entries, second.exits) == ("B", ("B.left", "B.right"), ("B.last",))
    assert not set(first.layers) & set(second.layers)


def test_a_network_with_one_way_through_is_one() -> None:
    for made, entry, exit_layer in ((U_NET, "conv1", "out"), (RESIDUAL, "conv1", "fc")):
        (whole,) = sub_networks(made)
        assert (whole.name, whole.entries, whole.exits) == ("", (entry,), (exit_layer,))


def test_heads_on_one_trunk_are_exits_of_one_sub_network() -> None:
    made = graph("x input\nt Conv2d*t.w x\na Conv2d*a.w t\nb Linear*b.w t\ns softmax b", "a", "s")
    (whole,) = sub_networks(made)
    assert whole.exits == ("a", "b")


def test_of_a_residual_output_the_latest_branch_is_the_end() -> None:
    made = graph("x input\na Conv2d*a.w x\nb Conv2d*b.w a\nadd1 add a b\nc Conv2d*c.w add1\nout add add1 c", "out")
    (whole,) = sub_networks(made)
    assert (whole.entries, whole.exits) == (("a",), ("c",))


def test_the_last_layer_but_one_is_seen_through_reshuffles() -> None:
    assert before_last(RESIDUAL, "fc") == "avg"
    assert before_last(U_NET, "out") == "cat"
    assert before_last(TWO_STAGES, "A.last") == "A.act_dup1"


def test_two_inputs_are_two_entries() -> None:
    made = graph("x input\ny input\na Linear*a.w x\nb Linear*b.w y\nm add a b\nc Linear*c.w m", "c")
    (whole,) = sub_networks(made)
    assert whole.entries == ("a", "b")


def test_of_a_residual_output_a_branch_without_weights_is_never_the_end() -> None:
    """The picture is enlarged after the last convolution ran, and added to what that makes."""
    made = graph("x input\na Conv2d*a.w x\nb Conv2d*b.w a\nup PixelShuffle b\nbig interpolate x\ns add up big", "s")
    (whole,) = sub_networks(made)
    assert whole.exits == ("b",)


def test_an_input_is_no_layer_but_one() -> None:
    made = graph("x input\nv flatten x\na Linear*a.w v\ne Embedding*e.w\nb Linear*b.w e", "a", "b")
    assert before_last(made, "a") is None
    assert before_last(made, "e") is None
    assert before_last(made, "b") == "e"
