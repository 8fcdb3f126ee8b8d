"""Graphs through modules of any name."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, fx, nn

from hessrank.network.walks.any_names import Tracer, is_plain


@pytest.mark.parametrize("name", ["in", 'a"b', "größe", "a b", "named0"])
def test_a_graph_and_its_copy_run(name: str) -> None:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self._modules[name] = nn.Linear(2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self._modules[name](x)

    network, x = Network(), torch.ones(3, 2)
    traced = fx.GraphModule(network, Tracer().trace(network))
    assert [node.target for node in traced.graph.nodes if node.op == "call_module"] == [name]
    for module in (traced, copy.deepcopy(traced)):
        assert torch.equal(module(x), network(x))


def test_what_torch_writes_right_is_plain() -> None:
    assert all(map(is_plain, ("conv1", "0", "_x")))
    assert not any(map(is_plain, ("in", "größe", "a b", "", "1a")))
