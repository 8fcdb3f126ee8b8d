"""What of a policy cannot be obeyed by a network, and what does nothing."""

from pathlib import Path

import pytest

from hessrank.quant.layer_graph.graph import Graph, Node
from hessrank.quant.policy import Finding, Policy, PolicyError, check, place_policy_quantizers, require

GRAPH = Graph.of(
    [
        Node("x", "input"),
        Node("shuffle", "PixelUnshuffle", ("x",)),
        Node("encoder.conv1", "Conv2d", ("shuffle",), weight="encoder.conv1.weight"),
        Node("encoder.relu", "ReLU", ("encoder.conv1",)),
        Node("pool", "MaxPool2d", ("encoder.relu",)),
        Node("scores", "Linear", ("pool",), weight="scores.weight"),
        Node("masked_fill", "masked_fill", ("scores",), masked=True),
        Node("softmax", "softmax", ("masked_fill",)),
    ],
    ["softmax"],
)
SPECIAL = "extra_quantizer_dict:\n  special_layer:\n"


@pytest.fixture
def findings(tmp_path, monkeypatch):
    """Write a text as policy.yaml in the current folder and check it."""
    monkeypatch.chdir(tmp_path)

    def write_and_check(text: str) -> list[Finding]:
        Path("policy.yaml").write_text(text)
        return check(Policy.read("policy.yaml"), GRAPH)

    return write_and_check


ERRORS = {
    "unknown layer": (
        SPECIAL + "    encoder.con1: {weight: 4}",
        "3:5: no layer named 'encoder.con1'; nearest is 'encoder.conv1'",
    ),
    "unknown output": (
        "output_layer_list: [pool, pol]",
        "1:27: no layer named 'pol'; nearest is 'pool'",
    ),
    "unknown layer to distill": (
        "distill_config:\n  - pool\n  - soft_max\ndistill_coeff: [1, 1]",
        "3:5: no layer named 'soft_max'; nearest is 'softmax'",
    ),
    "unknown excluded module": (
        "extra_quantizer_dict: {exclude_module_name: [encode]}",
        "1:46: no layer named 'encode'; nearest is 'encoder'",
    ),
    "a module where only layers are excluded": (
        "extra_quantizer_dict: {exclude_node_name: [encoder]}",
        "1:44: no layer named 'encoder'; nearest is 'encoder.relu'",
    ),
    "a name as torch.fx has it": (
        "extra_quantizer_dict: {exclude_node_name: [encoder_conv1]}",
        "1:44: no layer named 'encoder_conv1'; nearest is 'encoder.conv1'",
    ),
    "a bare width of a layer": (
        SPECIAL + "    scores: 10",
        "3:13: 'scores' is no input: write 'weight: 10' or 'activation: 10' below it",
    ),
}
WARNINGS = {
    "weight of an activation": (
        SPECIAL + "    encoder.relu:\n      weight: 10\n      activation: 10",
        "4:15: warning: the weight of 'encoder.relu' does nothing: ReLU has none",
    ),
    "weight of the input": (
        SPECIAL + "    input_layer: {weight: 10}",
        "3:27: warning: the weight of 'input_layer' does nothing: inputs have none",
    ),
    "weight of what is excluded": (
        SPECIAL + "    scores: {weight: 10}\n  exclude_node_name: [scores]",
        "3:22: warning: the weight of 'scores' does nothing: the policy excludes it",
    ),
    "activation of what is excluded": (
        SPECIAL + "    pool: {activation: 10}\n  exclude_node_name: [pool]",
        "3:24: warning: the activation of 'pool' does nothing: the policy excludes it",
    ),
    "input_layer where every input is named": (
        SPECIAL + "    input_layer: 10\n    x: 9",
        "3:18: warning: the activation of 'input_layer' does nothing: every input has an entry of its own",
    ),
    "input_layer where every input is excluded": (
        SPECIAL + "    input_layer: 10\n  exclude_node_name: [x]",
        "3:18: warning: the activation of 'input_layer' does nothing: the policy excludes it",
    ),
    "activation of a mask": (
        SPECIAL + "    masked_fill: {activation: 10}",
        "3:31: warning: the activation of 'masked_fill' does nothing: holds masked scores, which no grid does",
    ),
    "more bits behind a reshuffle": (
        SPECIAL + "    shuffle: {activation: 10}",
        "3:27: warning: the activation of 'shuffle' does nothing: "
        "it hands on values of 8 per_tensor_affine, the grid of 'x'; name that layer instead",
    ),
    "as many bits behind a reshuffle": (
        SPECIAL + "    encoder.relu: {activation: 6}\n    pool: {activation: 6}",
        "4:24: warning: the activation of 'pool' does nothing: "
        "it hands on values of 6 per_tensor_affine, the grid of 'encoder.relu'; name that layer instead",
    ),
    "an entry without words": (
        SPECIAL + "    pool: {}",
        "3:5: warning: 'pool' does nothing: it says neither weight nor activation",
    ),
}


@pytest.mark.parametrize(("text", "message"), ERRORS.values(), ids=ERRORS)
def test_what_cannot_be_obeyed_is_an_error(findings, text: str, message: str) -> None:
    (found,) = findings(text)
    assert (found.kind, str(found)) == ("error", f"policy.yaml:{message}")


@pytest.mark.parametrize(("text", "message"), WARNINGS.values(), ids=WARNINGS)
def test_what_does_nothing_is_a_warning(findings, text: str, message: str) -> None:
    (found,) = findings(text)
    assert (found.kind, str(found)) == ("warning", f"policy.yaml:{message}")


FINE = {
    "nothing": "{}",
    "the same as the default": SPECIAL + "    scores: {weight: 8, activation: 8}",
    "the inputs": SPECIAL + "    input_layer: 10",
    "an input by name": SPECIAL + "    x: 10",
    "between a convolution and its activation": SPECIAL + "    encoder.conv1: {activation: 10}",
    "fewer bits behind a reshuffle": SPECIAL + "    pool: {activation: 4}",
    "a module that holds others": "extra_quantizer_dict: {exclude_module_name: [encoder]}",
    "behind what is not quantized": SPECIAL + "    shuffle: {activation: 8}\n  exclude_node_name: [x]",
}


@pytest.mark.parametrize("text", FINE.values(), ids=FINE)
def test_what_does_something_is_not_found(findings, text: str) -> None:
    assert findings(text) == []


def test_a_contradiction_is_an_error_among_the_others(findings) -> None:
    graph_of_two = SPECIAL + "    x: 10\n    nowhere: {weight: 4}\n    encoder.relu: {weight: 4}"
    kinds = [(found.kind, found.line, found.layer) for found in findings(graph_of_two)]
    assert kinds == [("error", 4, "nowhere"), ("warning", 5, "encoder.relu")]
    shared = Graph.of([*GRAPH.nodes.values(), Node("again", "Linear", ("pool",), weight="scores.weight")], ["again"])
    entries = {"scores": {"weight": 4}, "again": {"weight": 5}, "pool": {"weight": 5}}
    found = check(Policy.of({"extra_quantizer_dict": {"special_layer": entries}}), shared)
    assert sorted(one.kind for one in found) == ["error", "warning"]
    assert "they share one weight" in found[0].message


def test_a_weight_that_no_quantizer_reaches_is_named_in_vain() -> None:
    nodes = [
        Node("x", "input"),
        Node("one", "Linear", ("x",), weight="shared"),
        Node("one_dup1", "Linear", ("one",), weight="shared"),
        Node("block.lin", "Linear", ("one_dup1",), weight="block.lin.weight", inside=True),
        Node("conv2d", "conv2d", ("block.lin",)),
    ]
    layers = {layer: {"weight": 4} for layer in ("one_dup1", "block.lin", "conv2d")}
    policy = Policy.of({"extra_quantizer_dict": {"special_layer": layers, "exclude_node_name": ["one"]}})
    why = {found.layer: found.message.partition(": ")[2] for found in check(policy, Graph.of(nodes, ["conv2d"]))}
    assert why == {
        "one_dup1": "the policy excludes a layer that shares it",
        "block.lin": "inside a module that torch.fx does not look into",
        "conv2d": "conv2d is called as a function: make it a module to quantize its weight",
    }


def test_errors_are_raised_for_whoever_has_to_obey(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("policy.yaml").write_text(SPECIAL + "    pool: {weight: 4}\n    a: {weight: 4}\n    b: {weight: 4}")
    with pytest.raises(PolicyError) as caught:
        require(Policy.read("policy.yaml"), GRAPH)
    assert str(caught.value).startswith("policy.yaml:4:5: no layer named 'a'; nearest is '")
    assert str(caught.value).endswith("(and 1 more)")
    harmless = Policy.of({"extra_quantizer_dict": {"special_layer": {"pool": {"weight": 4}}}})
    assert [str(found) for found in require(harmless, GRAPH)] == [
        "warning: the weight of 'pool' does nothing: MaxPool2d has none"
    ]


def test_what_stays_in_float_is_listed_with_its_reason() -> None:
    policy = Policy.of({"extra_quantizer_dict": {"exclude_node_name": ["x"]}})
    assert list(place_policy_quantizers(policy, GRAPH).unquantized.items()) == [
        ("x", "the policy excludes it"),
        ("shuffle", "hands on x, which is not quantized"),
        ("encoder.conv1", "computed in one kernel with encoder.relu"),
        ("masked_fill", "holds masked scores, which no grid does"),
    ]
