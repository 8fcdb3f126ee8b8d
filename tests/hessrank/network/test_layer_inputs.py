"""Which layer reads which: compared with graphs written down by hand."""

from __future__ import annotations

import pytest
import torch
from helpers.zoo import noise
from torch import Tensor, nn

from hessrank.data.batch import Batch
from hessrank.network.frozen_model import freeze
from hessrank.network.network import Network


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.drop = nn.Dropout()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.relu(self.conv(x))
        z = torch.cat([x, self.drop(y)], 1)
        return y + x, self.relu(z)


class Branching(nn.Module):
    """Control flow that torch.fx cannot follow."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.out = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.one(x)
        if y.sum() > 1e9:
            return y
        return self.out(torch.cat((self.two(y), y), -1))


class Tuples(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.linear = nn.LSTM(4, 4, batch_first=True), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y, (h, _) = self.lstm(x)
        a, b = self.linear(y).chunk(2, -1)
        return a * b + h.mean()


CASES = {
    "residual": (
        Residual,
        (1, 3, 4, 4),
        {
            "x": (),
            "conv": ("x",),
            "relu": ("conv",),
            "drop": ("relu",),
            "cat": ("x", "drop"),
            "add": ("drop", "x"),  # dropout in eval mode hands its input on
            "relu_dup1": ("cat",),
        },
        ("add", "relu_dup1"),
    ),
    "hooks": (
        Branching,
        (1, 4),
        {"x": (), "one": ("x",), "two": ("one",), "cat": ("two", "one"), "out": ("cat",)},
        ("out",),
    ),
    "tuples": (
        Tuples,
        (1, 3, 4),
        {
            "x": (),
            "getitem": ("x",),
            "getitem_2": ("x",),
            "linear": ("getitem",),
            "getitem_4": ("linear",),
            "getitem_5": ("linear",),
            "mul": ("getitem_4", "getitem_5"),
            "mean": ("getitem_2",),
            "add": ("mul", "mean"),
        },
        ("add",),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_inputs_and_outputs_of_every_layer(case: str) -> None:
    make, shape, inputs, outputs = CASES[case]
    torch.manual_seed(0)
    model = make()
    with freeze(model):
        network = Network(model, Batch((noise(*shape, seed=1),), samples=(0,)))
    found = {name: found for name, found in network.inputs.items() if name in inputs}
    assert found == inputs
    assert network.outputs == outputs


def test_what_takes_a_tensor_out_of_a_tuple_is_of_the_kind_of_its_maker() -> None:
    model = Tuples()
    with freeze(model):
        layers = {layer.name: layer.kind for layer in Network(model, Batch((noise(1, 3, 4, seed=1),))).layers}
    assert layers["getitem"] == "LSTM"
    assert layers["getitem_4"] == "chunk"


def test_layers_inside_a_leaf_module_are_told_apart() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.TransformerEncoderLayer(4, 1, 8, batch_first=True))
    with freeze(model):
        network = Network(model, Batch((noise(1, 3, 4, seed=1),)))
    names = {layer.name for layer in network.layers}
    assert "1.linear1" in network.inside
    assert {"0", "1.norm2"} <= names - network.inside  # the last one is what "1" returns
