"""Scales stay in float32."""

from __future__ import annotations

import torch
from torch import nn

from hessrank.quant.quantizers.precision import KeepsPrecision


class Scales(KeepsPrecision):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor(0.1))
        self.gain = nn.Parameter(torch.tensor(0.1))


def test_a_cast_of_the_network_leaves_them_as_they_are() -> None:
    network = nn.Sequential(nn.Linear(1, 1), Scales())
    network.half()
    assert network[0].weight.dtype == torch.float16
    for tensor in (network[1].scale, network[1].gain):
        assert tensor.dtype == torch.float32
        assert tensor.item() == torch.tensor(0.1).item()
    assert network.to("meta")[1].scale.is_meta
