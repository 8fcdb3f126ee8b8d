"""Names that torch.export can write down."""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn

from hessrank.network.walks.any_names import Tracer
from hessrank.quant.export.plain_names import give_plain_names, own_name


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.plain, self._modules["in"] = nn.Linear(2, 2), nn.Linear(2, 1)
        self._parameters["größe"] = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return self._modules["in"](self.plain(x)) * getattr(self, "größe")  # noqa: B009 - as a user may


def test_modules_and_tensors_move_to_where_they_have_a_plain_name() -> None:
    network, x = Network(), torch.ones(3, 2)
    traced = fx.GraphModule(network, Tracer().trace(network))
    before = traced(x)
    called = give_plain_names(traced)
    traced.recompile()
    assert sorted(called.values()) == ["größe", "in"]
    assert all(name.startswith("at_nodes.") and name.isascii() for name in called)
    assert torch.equal(traced(x), before)
    assert {own_name(name, called) for name, _ in traced.named_parameters()} == {
        "plain.weight", "plain.bias", "in.weight", "in.bias", "größe",
    }  # fmt: skip
