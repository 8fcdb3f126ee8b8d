"""What a policy means for every weight and every grid of a network."""

from typing import Any

import pytest

from hessrank.quant.layer_graph.graph import Graph, Node
from hessrank.quant.policy import Policy, PolicyError, Resolution, excluded_layers, place_policy_quantizers, resolve


def conv(name: str, source: str, weight: str | None = None) -> Node:
    return Node(name, "Conv2d", (source,), weight=weight or f"{name}.weight")


GRAPH = Graph.of(
    [
        Node("x", "input"),
        Node("side", "input"),
        Node("unshuffle", "PixelUnshuffle", ("x",)),
        conv("enc.conv", "unshuffle"),
        Node("enc.relu", "ReLU", ("enc.conv",)),
        Node("pool", "MaxPool2d", ("enc.relu",)),
        conv("skip", "pool"),
        conv("dec.conv", "pool"),
        Node("cat", "cat", ("skip", "dec.conv")),
        conv("res", "cat"),
        Node("add", "add", ("res", "side")),
        conv("head", "add", "shared.weight"),
        conv("head_dup1", "head", "shared.weight"),
    ],
    ["head_dup1"],
)


def resolved(*, graph: Graph = GRAPH, **sections: Any) -> Resolution:
    policy = Policy.of(
        {
            "extra_quantizer_dict": {"special_layer": sections.pop("layers", {}), **sections.pop("excluded", {})},
            **sections,
        }
    )
    return resolve(policy, graph, place_policy_quantizers(policy, graph))


def told(resolution: Resolution, tensor: str) -> tuple[str, str]:
    """Return the scheme and the reason of a grid or a weight."""
    setting = {**resolution.activations, **resolution.weights}[tensor]
    return str(setting.scheme), setting.reason


def test_a_policy_without_entries_gives_everything_the_default() -> None:
    found = resolved(
        extra_qconfig_dict={
            "w_qscheme": {"bit": 4, "symmetry": True},
            "a_qscheme": {"bit": 6},
            "w_fakequantize": "LearnableFakeQuantize",
            "a_fakequantize": "pact",
            "w_observer": "mse",
            "a_observer": "EMAMinMaxObserver",
        }
    )
    assert list(found.activations) == ["x", "side", "enc.relu", "skip", "res", "add", "head", "head_dup1"]
    assert list(found.weights) == ["enc.conv.weight", "skip.weight", "dec.conv.weight", "res.weight", "shared.weight"]
    for setting in found.activations.values():
        assert (str(setting.scheme), setting.method, setting.observer) == (
            "6 per_tensor_affine",
            "pact",
            "moving-average",
        )
        assert setting.reason == "default"
    for setting in found.weights.values():
        assert (str(setting.scheme), setting.method, setting.observer) == ("4 per_channel_symmetric", "lsq", "mse")
        assert setting.reason == "default"


def test_a_named_tensor_gets_what_its_line_says(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines = [
        "extra_quantizer_dict:",
        "  special_layer:",
        "    head:",
        "      weight: 4",
        "      activation: 12 symmetric",
    ]
    (tmp_path / "policy.yaml").write_text("\n".join(lines))
    policy = Policy.read("policy.yaml")
    found = resolve(policy, GRAPH, place_policy_quantizers(policy, GRAPH))
    assert told(found, "shared.weight") == ("4 per_channel_affine", "policy line 4")
    assert told(found, "head") == ("12 per_tensor_symmetric", "policy line 5")
    assert told(found, "head_dup1") == ("8 per_tensor_affine", "default")


def test_any_call_of_a_shared_weight_names_it() -> None:
    assert told(resolved(layers={"head_dup1": {"weight": 5}}), "shared.weight") == ("5 per_channel_affine", "policy")


def test_input_layer_names_every_input_that_has_no_entry_of_its_own() -> None:
    found = resolved(layers={"input_layer": 10})
    assert told(found, "x") == told(found, "side") == ("10 per_tensor_affine", "input_layer")
    found = resolved(layers={"input_layer": {"activation": 10}, "x": "12 symmetric"})
    assert told(found, "x") == ("12 per_tensor_symmetric", "policy")
    assert told(found, "side") == ("10 per_tensor_affine", "input_layer")


def test_one_name_counts_for_all_inputs_of_a_concatenation() -> None:
    for name in ("dec.conv", "cat"):
        found = resolved(layers={name: {"activation": 12}})
        assert told(found, "skip") == ("12 per_tensor_affine", f"tied to {name}")
    assert told(resolved(layers={"skip": {"activation": 12}}), "skip") == ("12 per_tensor_affine", "policy")


def test_an_addition_ties_bits_and_not_grids() -> None:
    found = resolved(layers={"res": {"activation": "12 symmetric"}})
    assert told(found, "res") == ("12 per_tensor_symmetric", "policy")
    assert told(found, "side") == ("12 per_tensor_affine", "tied to res")
    assert told(found, "x") == ("8 per_tensor_affine", "default")
    found = resolved(layers={"res": {"activation": "12 symmetric"}, "side": 12})
    assert told(found, "side") == ("12 per_tensor_affine", "policy")


def test_a_layer_inside_a_kernel_gets_a_setting_of_its_own_when_it_is_named() -> None:
    assert "enc.conv" not in resolved().activations
    found = resolved(layers={"enc.conv": {"activation": 12}})
    assert told(found, "enc.conv") == ("12 per_tensor_affine", "policy")
    assert told(found, "enc.relu") == ("8 per_tensor_affine", "default")


def test_what_is_excluded_has_no_setting() -> None:
    found = resolved(excluded={"exclude_node_name": ["head"]}, layers={"head": {"activation": 4, "weight": 4}})
    assert "head" not in found.activations
    assert "shared.weight" not in found.weights


def test_an_excluded_module_stands_for_all_it_holds() -> None:
    policy = Policy.of(
        {"extra_quantizer_dict": {"exclude_module_name": ["enc"], "exclude_node_name": ["add", "dec"]}}
    )
    assert excluded_layers(policy, GRAPH) == ("enc.conv", "enc.relu", "add")
    placement = place_policy_quantizers(policy, GRAPH)
    assert placement.grid_of["pool"] is None
    assert "enc.conv.weight" not in placement.weights


CONTRADICTIONS = {
    "shared weight": (
        "    head: {weight: 4}\n    head_dup1: {weight: 5}\n",
        "policy.yaml:4:25: 'head_dup1' has 5 per_channel_affine, but 'head' in line 3 has 4 per_channel_affine, "
        "and they share one weight: give both the same",
    ),
    "concatenation": (
        "    dec.conv: {activation: 4}\n    skip: {activation: 4 symmetric}\n",
        "policy.yaml:4:24: 'skip' has 4 per_tensor_symmetric, but 'dec.conv' in line 3 has 4 per_tensor_affine, "
        "and they share one grid: give both the same",
    ),
    "addition": (
        "    side: 4\n    res:\n      activation: 5\n",
        "policy.yaml:5:19: 'res' has 5 per_tensor_affine, but 'side' in line 3 has 4 per_tensor_affine, "
        "and an addition ties their bits: give both the same",
    ),
    "addition of the input": (
        "    input_layer: 10\n    res:\n      activation: 12\n",
        "policy.yaml:5:19: 'res' has 12 per_tensor_affine, but 'input_layer' in line 3 has 10 per_tensor_affine, "
        "and an addition ties their bits: give both the same",
    ),
}


@pytest.mark.parametrize(("entries", "message"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_contradictions_name_both_lines(tmp_path, monkeypatch, entries: str, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policy.yaml").write_text("extra_quantizer_dict:\n  special_layer:\n" + entries)
    policy = Policy.read("policy.yaml")
    with pytest.raises(PolicyError) as caught:
        resolve(policy, GRAPH, place_policy_quantizers(policy, GRAPH))
    assert str(caught.value) == message


def test_a_layer_may_be_called_input_layer() -> None:
    graph = Graph.of([Node("x", "input"), conv("input_layer", "x"), Node("relu", "ReLU", ("input_layer",))], ["relu"])
    of_the_layer = resolved(graph=graph, layers={"input_layer": {"weight": 4, "activation": 5}})
    assert told(of_the_layer, "input_layer.weight") == ("4 per_channel_affine", "policy")
    assert told(of_the_layer, "input_layer") == ("5 per_tensor_affine", "policy")
    assert told(of_the_layer, "x") == ("8 per_tensor_affine", "default")
    of_the_input = resolved(graph=graph, layers={"input_layer": 5})
    assert told(of_the_input, "x") == ("5 per_tensor_affine", "input_layer")
    assert "input_layer" not in of_the_input.activations
