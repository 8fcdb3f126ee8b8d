"""Names are given out once each, and mean the same as in a torch.fx graph."""

from __future__ import annotations

import operator

import pytest
import torch
from torch import fx, nn

from hessrank.network.layer_names import Names, module_paths, node_kind


@pytest.mark.parametrize(
    ("reserved", "paths", "expected"),
    [
        pytest.param([], ["a", "b"], ["a", "b"], id="once"),
        pytest.param([], ["a", "a", "b", "a"], ["a", "a_dup1", "b", "a_dup2"], id="again"),
        pytest.param(["a", "a_dup1"], ["a", "a", "a_dup1"], ["a", "a_dup2", "a_dup1"], id="taken-later"),
        pytest.param(["a", "a_dup1"], ["a_dup1", "a", "a"], ["a_dup1", "a", "a_dup2"], id="taken-before"),
        pytest.param(["Conv1", "conv1"], ["Conv1", "conv1"], ["Conv1", "conv1"], id="capitals"),
        pytest.param(["0", "1"], ["0", "1", "0"], ["0", "1", "0_dup1"], id="numbers"),
    ],
)
def test_module_names(reserved, paths, expected):
    names = Names(reserved)
    assert [names.for_module(path) for path in paths] == expected


@pytest.mark.parametrize(
    ("reserved", "nodes", "expected"),
    [
        pytest.param([], ["add", "add_1"], ["add", "add_1"], id="free"),
        pytest.param(["add"], ["add"], ["add_call"], id="a-module-has-it"),
        pytest.param(["add", "add_call"], ["add"], ["add_call_call"], id="a-module-has-that-too"),
        pytest.param([], ["add", "add"], ["add", "add_call"], id="given"),
    ],
)
def test_node_names(reserved, nodes, expected):
    names = Names(reserved)
    assert [names.for_node(node) for node in nodes] == expected


def test_a_module_called_after_a_node_of_its_name_keeps_its_name():
    names = Names(["cat"])
    assert names.for_node("cat") == "cat_call"
    assert names.for_module("cat") == "cat"


def test_module_paths_hold_every_alias():
    inner = nn.Linear(1, 1)
    root = nn.ModuleDict({"a": inner, "b": nn.Sequential(inner)})
    assert module_paths(root) == {"a", "b", "b.0"}


def test_kinds_of_nodes():
    class Model(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            a, _ = x.chunk(2, 1)
            return torch.cat([a, operator.add(a, 1)], 1).relu()

    nodes = fx.Tracer().trace(Model()).nodes
    kinds = [node_kind(node) for node in nodes if node.op != "output"]
    assert kinds == ["input", "chunk", "getitem", "getitem", "add", "cat", "relu"]
