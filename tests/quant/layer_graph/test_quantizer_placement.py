"""Where quantizers belong, on graphs small enough to do it by hand."""

from __future__ import annotations

import pytest
from helpers.hand_graphs import RESIDUAL, TWO_STAGES, U_NET, graph

from hessrank.quant.layer_graph.graph import Graph, Node
from hessrank.quant.layer_graph.quantizer_placement import place_quantizers


def test_one_quantizer_behind_each_kernel_and_one_grid_for_a_concatenation() -> None:
    placement = place_quantizers(U_NET)
    assert placement.activations == {"x": "x", "relu1": "relu1", "relu2": "relu2", "up": "relu1", "out": "out"}
    assert placement.grid_of["pool"] == "relu1"  # max pooling hands the grid on
    assert placement.grid_of["cat"] == "relu1"
    assert placement.members("relu1") == ("relu1", "up")
    assert placement.fused == {"conv1": "relu1", "conv2": "relu2"}
    assert placement.unquantized == {
        "conv1": "computed in one kernel with relu1",
        "conv2": "computed in one kernel with relu2",
    }


def test_batch_norm_and_activation_belong_to_the_convolution_and_additions_tie_bits() -> None:
    placement = place_quantizers(RESIDUAL)
    assert list(placement.activations) == ["x", "relu", "bn2", "relu_dup1", "avg", "fc"]
    assert placement.fused == {"conv1": "relu", "bn1": "relu", "conv2": "bn2", "add": "relu_dup1"}
    assert placement.tied == (("relu", "bn2"),)
    assert placement.grid_of["flat"] == "avg"


def test_a_layer_inside_a_kernel_gets_a_quantizer_when_the_policy_names_it() -> None:
    placement = place_quantizers(RESIDUAL, named={"conv1"})
    assert list(placement.activations)[:3] == ["x", "conv1", "relu"]
    assert "conv1" not in placement.unquantized


def test_a_reshuffle_gets_a_quantizer_when_the_policy_names_it() -> None:
    placement = place_quantizers(TWO_STAGES, named={"down"})
    assert placement.activations["down"] == "down"
    assert placement.grid_of["down_dup1"] == "A.last"


def test_the_input_in_front_of_a_reshuffle_is_quantized() -> None:
    placement = place_quantizers(TWO_STAGES)
    assert placement.activations["raw"] == "raw"
    assert placement.grid_of["down"] == "raw"


def test_an_excluded_layer_stays_in_float_and_so_does_what_only_hands_it_on() -> None:
    placement = place_quantizers(U_NET, excluded={"relu1", "conv1"})
    assert placement.unquantized["relu1"] == "the policy excludes it"
    assert placement.unquantized["pool"] == "hands on relu1, which is not quantized"
    assert placement.unquantized["cat"] == "joins relu1, which is not quantized"
    assert "conv1.weight" not in placement.weights
    assert placement.activations["up"] == "up"


def test_a_convolution_whose_result_is_used_twice_or_returned_is_not_fused() -> None:
    made = graph(
        """
        x    input
        a    Conv2d*a.weight x
        r    ReLU a
        b    Conv2d*b.weight r
        s    ReLU b
        m    mul a s
        """,
        "m",
        "b",
    )
    placement = place_quantizers(made)
    assert list(placement.activations) == ["x", "a", "r", "b", "s", "m"]
    assert placement.fused == {}


@pytest.mark.parametrize("kind", ["GELU", "Sigmoid", "softmax", "LayerNorm", "mean", "AvgPool2d", "mul"])
def test_what_is_not_piecewise_linear_reads_a_quantized_tensor(kind: str) -> None:
    placement = place_quantizers(graph(f"x input\nc Conv2d*c.weight x\ng {kind} c", "g"))
    assert list(placement.activations) == ["x", "c", "g"]


def test_masked_scores_are_left_alone() -> None:
    made = graph("x input\nl Linear*l.weight x\nm masked_fill l\ns softmax m", "s", masked={"m": True})
    placement = place_quantizers(made, named=["m"])
    assert list(placement.activations) == ["x", "l", "s"]
    assert placement.unquantized["m"] == "holds masked scores, which no grid does"


def test_calls_of_one_module_share_a_weight_and_have_a_quantizer_each() -> None:
    made = graph("x input\nl Linear*l.weight x\nl_dup1 Linear*l.weight l\nl_dup2 Linear*l.weight l_dup1", "l_dup2")
    placement = place_quantizers(made)
    assert placement.weights == {"l.weight": ("l", "l_dup1", "l_dup2")}
    assert list(placement.activations) == ["x", "l", "l_dup1", "l_dup2"]


def test_concatenations_that_share_a_tensor_share_one_grid() -> None:
    made = graph("x input\na Conv2d*a.weight x\nb Conv2d*b.weight a\nc cat x a\nd cat a b\ne cat c d", "e")
    placement = place_quantizers(made)
    assert placement.grids == ("x",)
    assert placement.grid_of["e"] == "x"


def test_what_lies_inside_a_leaf_module_is_out_of_reach() -> None:
    made = Graph.of(
        [Node("x", "input"), Node("enc.l", "Linear", ("x",), weight="enc.l.weight", inside=True)], ["enc.l"]
    )
    placement = place_quantizers(made)
    assert list(placement.activations) == ["x"]
    assert placement.weights == {}
    assert "does not look into" in placement.unquantized["enc.l"]


def test_every_layer_is_on_a_grid_or_has_a_reason() -> None:
    for made in (U_NET, RESIDUAL, TWO_STAGES):
        placement = place_quantizers(made)
        assert {n for n, grid in placement.grid_of.items() if grid is None} == set(placement.unquantized)
        assert set(placement.grid_of) == set(made.nodes)


HAND_WRITTEN_NORM = """
    x      input
    conv   Conv2d*conv.weight x
    mean   mean               conv
    sub    sub                conv mean
    pow_1  pow                sub
    mean_1 mean               pow_1
    add    add                mean_1
    sqrt   sqrt               add
    sub_1  sub                conv mean
    div    truediv            sub_1 sqrt
    """


def test_what_a_hand_written_norm_divides_by_stays_in_float() -> None:
    placement = place_quantizers(graph(HAND_WRITTEN_NORM, "div"))
    assert list(placement.activations) == ["x", "conv", "mean", "sub_1", "div"]
    assert set(placement.unquantized) == {"sub", "pow_1", "mean_1", "add", "sqrt"}
    assert "rounding it to 0" in placement.unquantized["add"]


def test_what_is_divided_by_is_quantized_where_something_else_reads_it_or_the_policy_names_it() -> None:
    assert "sqrt" in place_quantizers(graph(HAND_WRITTEN_NORM, "div", "sqrt")).activations
    assert "add" in place_quantizers(graph(HAND_WRITTEN_NORM, "div"), named=["add"]).activations


def test_a_numerator_and_a_kernel_with_a_weight_are_quantized_whoever_reads_them() -> None:
    made = graph("x input\na Linear*a.w x\nrelu ReLU a\nlog log relu\nb abs x\nc abs x\ndiv div b c\n", "log", "div")
    assert list(place_quantizers(made).activations) == ["x", "relu", "log", "b", "div"]
