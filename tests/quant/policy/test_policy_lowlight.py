"""The first user's file against the network it was written for."""

from pathlib import Path

import pytest
import torch

from hessrank.analysis.rank import rank
from hessrank.distill.tasks.lowlight import LowLight
from hessrank.quant.layer_graph.graph import Graph
from hessrank.quant.policy import Policy, check, place_policy_quantizers, require, resolve

pytestmark = pytest.mark.slow  # the shipped network is traced


@pytest.fixture(scope="module")
def graph() -> Graph:
    torch.manual_seed(0)
    return Graph.of_ranking(rank(LowLight(2, 4), torch.rand(1, 1, 32, 32), max_probes=2, bits=[8]))


@pytest.fixture(scope="module")
def policy() -> Policy:
    return Policy.read(Path(__file__).with_name("first_user_run.yaml"))


def test_only_weights_of_activations_do_nothing(policy: Policy, graph: Graph) -> None:
    found = require(policy, graph)
    blamed = ["DBF.DBF_conv1.lrelu", "DBF.DBF_conv9.lrelu_dup1"]
    blamed += ["DBLE.color_conv1.lrelu", "DBLE.mono_conv1.lrelu", "DBLE.dual_conv9.lrelu"]
    assert [(one.kind, one.layer) for one in found] == [("warning", layer) for layer in blamed]
    assert [one.line for one in found] == [20, 29, 38, 47, 56]
    assert all("LeakyReLU has none" in one.message for one in found)


def test_every_entry_is_obeyed(policy: Policy, graph: Graph) -> None:
    placement = place_policy_quantizers(policy, graph)
    found = resolve(policy, graph, placement)
    ten = {grid for grid, setting in found.activations.items() if setting.scheme.bits == 10}
    assert ten == {"raw"} | set(policy.layers) - {"input_layer"}
    assert found.activations["raw"].reason == "input_layer"
    assert found.activations["DBF.DBF_conv1.Conv1"].reason == "policy line 18"
    weights = {name for name, setting in found.weights.items() if setting.scheme.bits == 10}
    named = {layer for layer in policy.named_weights if graph[layer].weight}
    assert weights == {f"{layer}.weight" for layer in named}
    assert len(named) == 11
    others = [s.scheme.bits for s in (*found.activations.values(), *found.weights.values()) if s.reason == "default"]
    assert set(others) == {8}


def test_the_named_convolution_is_quantized_before_its_activation(policy: Policy, graph: Graph) -> None:
    assert "DBF.DBF_conv1.Conv1" not in place_policy_quantizers(Policy(), graph).activations
    assert place_policy_quantizers(policy, graph).activations["DBF.DBF_conv1.Conv1"] == "DBF.DBF_conv1.Conv1"


def test_written_by_us_it_means_the_same(policy: Policy, graph: Graph, tmp_path) -> None:
    policy.write(tmp_path / "policy.yaml", {"DBF.DBF_out": "rank 1/138"})
    again = Policy.read(tmp_path / "policy.yaml")
    assert again == policy
    assert len(check(again, graph)) == 5


def test_a_policy_for_another_network_is_refused(graph: Graph) -> None:
    other = Policy.of({"extra_quantizer_dict": {"special_layer": {"layer1.0.conv1": {"weight": 4}}}})
    (found,) = check(other, graph)
    assert found.kind == "error"
    assert found.message.startswith("no layer named 'layer1.0.conv1'; nearest is '")
