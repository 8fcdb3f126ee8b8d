"""What layers read beside other layers, on networks small enough to write the answer down."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hessrank.data.batch import Batch
from hessrank.network.constants import QUANTIZABLE
from hessrank.quant.layer_graph.graph import Graph, Node
from hessrank.quant.layer_graph.quantizer_placement import place_quantizers
from hessrank.quant.prepare import graph_of
from hessrank.quant.prepare.modules import QUANTIZED


class SamePadding(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (1, 1, 1, 1)), self.weight, self.bias)


class Wrapped(nn.Linear):
    """A class of its own that adds nothing."""


class Net(nn.Module):
    """A network of a few modules, parameters and buffers, and a forward that is given."""

    def __init__(self, forward: Callable[[Any, Tensor], Tensor], **parts: Any) -> None:
        super().__init__()
        for name, part in parts.items():
            if isinstance(part, nn.Module | nn.Parameter):
                setattr(self, name, part)
            else:
                self.register_buffer(name, part)
        self._how = forward

    def forward(self, x: Tensor) -> Tensor:
        return self._how(self, x)


def nodes_of(model: nn.Module, *inputs: Tensor) -> Graph:
    torch.manual_seed(0)
    return graph_of(model.eval(), Batch(inputs, samples=(0,)))


def linear(seed: int = 0) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(4, 4)


def normed() -> nn.Module:
    with pytest.warns(FutureWarning):
        return nn.utils.weight_norm(linear())


X = torch.randn(1, 3, 4, generator=torch.Generator().manual_seed(1))
FLOAT: dict[str, tuple[Callable[[], nn.Module], Tensor, dict[str, str]]] = {
    "a function is given the weight of a subclass": (
        lambda: nn.Sequential(SamePadding(1, 2, 3)),
        torch.randn(1, 1, 4, 4),
        {"weight of conv2d": "SamePadding hands it to the function conv2d: only that of a plain Conv2d can be quant"},
    ),
    "a subclass that adds nothing": (
        lambda: nn.Sequential(Wrapped(4, 4)),
        X,
        {"weight of linear": "Wrapped hands it to the function linear: only that of a plain Linear can be quantized"},
    ),
    "a function is given a parameter": (
        lambda: Net(lambda s, x: F.linear(x, s.w), w=nn.Parameter(torch.ones(2, 4))),
        X,
        {"weight of linear": "linear is called as a function: make it a module to quantize its weight"},
    ),
    "a product with a parameter that is computed": (
        lambda: Net(lambda s, x: x @ (s.w * 2).T, w=nn.Parameter(torch.ones(2, 4))),
        X,
        {"weight of matmul": "matmul is called as a function: make it a module to quantize its weight"},
    ),
    "a table that a function looks up": (
        lambda: Net(lambda s, x: s.a(F.embedding(x, s.w)), a=linear(), w=nn.Parameter(torch.ones(5, 4))),
        torch.tensor([[0, 3]]),
        {"weight of embedding": "embedding is called as a function: make it a module to quantize its weight"},
    ),
    "a recurrent layer, once": (
        lambda: Net(lambda s, x: s.l(x)[0] + s.l(x)[0], l=nn.LSTM(4, 4, batch_first=True)),
        X,
        {"weight of l": "used inside the LSTM, which cannot be looked into"},
    ),
    "attention, once": (
        lambda: Net(lambda s, x: s.m(x, x, x)[0], m=nn.MultiheadAttention(4, 2, batch_first=True)),
        X,
        {"weight of m": "used inside the MultiheadAttention, which cannot be looked into"},
    ),
    "a parametrized weight": (
        lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(linear())),
        X,
        {"weight of 0": "computed by a parametrization: torch.nn.utils.parametrize.remove_parametrizations makes it"},
    ),
    "a weight that a hook computes": (
        lambda: nn.Sequential(normed()),
        X,
        {"weight of 0": "computed by weight_norm before every call: torch.nn.utils.remove_weight_norm(module)"},
    ),
    "a layer that reads a parameter and no data": (
        lambda: Net(lambda s, x: x @ s.k(s.q).mT, k=linear(), q=nn.Parameter(torch.ones(2, 4))),
        X,
        {"weight of k": "computes with constants only, not with data"},
    ),
    "a constant that a product reads": (
        lambda: Net(lambda s, x: s.a(x) @ s.dft, a=linear(), dft=torch.eye(4)),
        X,
        {"input dft of matmul": "a constant of the network, not an activation"},
    ),
    "whole numbers that a layer reads": (
        lambda: Net(lambda s, x: s.a((x * torch.arange(4)).float().sin()), a=linear()),
        torch.tensor([[[3], [5]]]),
        {"input sin of a": "made of whole numbers only, so it was not ranked and no range is known"},
    ),
    "something cut off from what was ranked": (
        lambda: Net(lambda s, x: s.a(x) + s.b(x.detach() * 2), a=linear(), b=linear(1)),
        X,
        {"input mul of b": "cut off from what was ranked (detached, or a view that is written to)"},
    ),
}


@pytest.mark.parametrize("name", FLOAT)
def test_what_kernels_read_in_float_is_told_once_with_its_reason(name: str) -> None:
    make, x, expected = FLOAT[name]
    found = place_quantizers(nodes_of(make(), x)).in_float
    assert list(found) == list(expected)
    assert all(found[what].startswith(why) for what, why in expected.items())


NOT_FLOAT: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "biases, norms and what is added": (
        lambda: Net(
            lambda s, x: s.n(s.a(x) + s.p) * s.b,
            a=linear(),
            n=nn.LayerNorm((3, 4)),
            p=nn.Parameter(X),
            b=torch.ones(4),
        ),
        X,
    ),
    "a view of what is quantized": (lambda: Net(lambda s, x: s.a(x.detach()[:, :2]), a=linear()), X),
    "numbers of tokens": (
        lambda: Net(lambda s, x: s.a(s.e(x)), a=linear(), e=nn.Embedding(9, 4)),
        torch.tensor([[1, 2]]),
    ),
    "one tensor twice": (lambda: Net(lambda s, x: s.a(x) @ s.a(x).mT, a=linear()), X),
}


@pytest.mark.parametrize("name", NOT_FLOAT)
def test_what_no_kernel_multiplies_with_is_not_told(name: str) -> None:
    make, x = NOT_FLOAT[name]
    assert place_quantizers(nodes_of(make(), x)).in_float == {}


def test_every_tensor_that_a_network_stores_is_counted_once() -> None:
    model = Net(
        lambda s, x: s.n(s.a(s.a(x)) + s.at) @ s.w.T,
        a=linear(),
        n=nn.BatchNorm1d(3),
        at=torch.ones(3, 4),
        w=nn.Parameter(torch.ones(7, 4)),
        never=linear(),
    )
    found = nodes_of(model, X)
    norm = dict.fromkeys(["n.weight", "n.bias", "n.running_mean", "n.running_var"], 12)
    assert found.stored == {"a.bias": 16, "at": 48, "w": 112} | norm
    assert (found["a"].weight, found["a"].weight_numel, found["a"].channels) == ("a.weight", 16, 4)
    assert (found["matmul"].float_weights, found["matmul"].weight) == (("w",), None)
    assert set(found["n"].reads) == set(norm)


def test_channels_are_counted_along_the_axis_of_the_outputs() -> None:
    made = [
        nn.Conv1d(4, 6, 2),
        nn.ConvTranspose1d(4, 6, 2),
        nn.ConvTranspose1d(4, 6, 2, groups=2),
        nn.Conv1d(4, 8, 2, groups=4),
    ]
    counts = [nodes_of(nn.Sequential(module), torch.randn(1, 4, 5))["0"].channels for module in made]
    assert counts == [6, 6, 3, 8]
    assert nodes_of(nn.Sequential(nn.Embedding(9, 4), linear()), torch.tensor([[1]]))["0"].channels == 9


def test_the_rule_and_the_classes_that_prepare_knows_are_the_same() -> None:
    assert QUANTIZED.keys() == QUANTIZABLE


def test_a_graph_of_an_older_ranking_still_tells_what_it_knows() -> None:
    nodes = [Node("x", "input"), Node("conv2d", "conv2d", ("x",)), Node("lstm[0]", "LSTM", ("conv2d",))]
    found = place_quantizers(Graph.of(nodes, ["lstm[0]"], ["lstm"])).in_float
    assert list(found) == ["weight of conv2d", "weight of lstm"]
