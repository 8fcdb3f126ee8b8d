"""What a network writes in place."""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn

from hessrank.quant.prepare.inplace import hand_results_on, is_written_to, written_by


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = x * 2
        view = y.view(-1)
        self.act(view)
        z = y + 1
        z.add_(1)
        return z * 3


def test_writers_are_found_and_their_readers_read_the_result() -> None:
    module = fx.symbolic_trace(Network())
    nodes = {node.name: node for node in module.graph.nodes}
    assert written_by(module, nodes["act"]) is nodes["view"]
    assert written_by(module, nodes["add_"]) is nodes["add"]
    assert written_by(module, nodes["mul"]) is None
    assert [is_written_to(module, nodes[name]) for name in ("mul", "view", "add", "x")] == [True, True, True, False]
    before = module(torch.ones(2))
    hand_results_on(module)
    module.recompile()
    assert nodes["mul_1"].args[0] is nodes["add_"]
    assert torch.equal(module(torch.ones(2)), before)
