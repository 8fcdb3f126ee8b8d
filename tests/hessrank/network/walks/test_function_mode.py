"""Functions between the modules of a network that torch.fx cannot trace: names, order, taps, what is left out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers.small_networks import exact_traces
from torch import Tensor, nn

from hessrank.analysis.rank import rank
from hessrank.analysis.verify.verify import verify
from hessrank.data.batch import Batch
from hessrank.network.frozen_model import freeze
from hessrank.network.layer_names import Layer, Names
from hessrank.network.network import Network
from hessrank.network.walks.call import Call


class Norm(nn.Module):
    """A module without modules inside: one layer, whatever its functions."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out, self.drop = nn.Linear(4, 12), nn.Linear(4, 4), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        scores = q @ k.transpose(1, 2) / 2
        return self.out(self.drop(scores.softmax(-1)) @ v)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.attention, self.up, self.down = Norm(), Attention(), nn.Linear(4, 8), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm(x))
        gate, value = self.up(x).split(4, -1)
        return F.dropout(x, 0.5, self.training) + self.down(F.silu(gate) * value)


class Untraceable(nn.Module):
    """Branches on its data; everything that torch.fx would call a function."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.blocks, self.head = nn.Linear(3, 4), nn.ModuleList([Block(), Block()]), nn.Linear(4, 2)
        self.places = nn.Parameter(torch.randn(1, 2, 4))

    def forward(self, x: Tensor) -> Tensor:
        if x.isnan().any():
            raise ValueError("NaN")
        x = self.embedding(x) + self.places * 2
        with torch.no_grad():
            scale = x.abs().amax() * 0 + 1
        for block in self.blocks:
            x = block(x)
        return self.head((x * scale).mean(1)) - torch.zeros_like(x[:, 0, :2])


BLOCK = """
    norm attention.qkv attention.matmul attention.truediv attention.softmax attention.matmul_1 attention.out add up
    silu mul down add_1
""".split()
NAMES = [
    *("x", "embedding", "add"),
    *(f"blocks.{i}.{part}" for i in range(2) for part in BLOCK),
    *("mul_2", "mean", "head", "sub"),
]
KINDS = {"blocks.0.norm": "Norm", "blocks.1.attention.matmul_1": "matmul", "mean": "mean", "blocks.0.add_1": "add"}


def model() -> Untraceable:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Untraceable().double()


def data(samples: int = 2) -> Tensor:
    return torch.randn(samples, 2, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.fixture
def network() -> Any:
    made = model()
    with freeze(made):
        yield Network(made, Batch((data(1),)))


def test_names_kinds_and_order(network: Network) -> None:
    assert [layer.name for layer in network.layers] == NAMES
    kinds = {layer.name: layer.kind for layer in network.layers}
    assert kinds | KINDS == kinds
    assert all(layer.module is None for layer in network.layers if "add" in layer.name)
    assert network.inputs["blocks.0.add"] == ("add", "blocks.0.attention.out")
    assert network.inputs["blocks.0.attention.matmul"] == ("blocks.0.attention.qkv",)
    assert network.outputs == ("sub",)


def test_every_run_shows_the_same_names(network: Network) -> None:
    for batch in (Batch((data(1),)), Batch((data(2),), samples=(0, 1))):
        for differentiable in (False, True):
            seen: list[str] = []
            network.run(batch, lambda layer, *_: seen.append(layer.name), differentiable=differentiable)
            assert seen == NAMES


@pytest.mark.parametrize("name", ["add", "blocks.0.attention.softmax", "blocks.1.mul", "blocks.1.add_1"])
@pytest.mark.parametrize("differentiable", [False, True])
def test_a_tap_replaces_what_a_function_made(network: Network, name: str, differentiable: bool) -> None:
    values: dict[str, Tensor] = {}

    def zero(layer: Layer, call: Call, value: Tensor) -> Tensor | None:
        values[layer.name] = value.detach().clone()
        return torch.zeros_like(value) if layer.name == name else None

    network.run(Batch((data(1),)), zero, differentiable=differentiable)
    reader = {
        "add": ("blocks.0.norm", lambda x: x),
        "blocks.0.attention.softmax": ("blocks.0.attention.matmul_1", lambda x: x),
        "blocks.1.mul": ("blocks.1.down", lambda x: x - network.model.blocks[1].down.bias),
        "blocks.1.add_1": ("mul_2", lambda x: x),
    }[name]
    assert not reader[1](values[reader[0]]).any()


def test_gradient_hooks_reach_every_function(network: Network) -> None:
    reached: set[str] = set()

    def watch(layer: Layer, call: Call, value: Tensor) -> None:
        value.register_hook(lambda _: reached.add(layer.name))

    run = network.run(Batch((data(1),)), watch, differentiable=True)
    torch.autograd.grad(run.output.sum(), run.roots)
    assert reached == set(NAMES)


def test_exact_traces_are_those_of_torch_func() -> None:
    found = rank(model(), data(), loss="self-mse", estimator="exact", bits=(8,))
    net = model().eval()
    exact = exact_traces(net, data(), F.mse_loss, net(data()).detach())
    assert set(exact) - set(found) == {"blocks.0.attention.drop", "blocks.1.attention.drop"}
    for name, traces in exact.items():
        if name in found:
            assert found[name].trace == pytest.approx(sum(traces) / len(traces), rel=1e-9)
    assert found["blocks.0.mul"].trace == pytest.approx(_of_product(net), rel=1e-9)


def _of_product(net: Untraceable) -> float:
    """Return the exact trace at ``silu(gate) * value`` of the first block: what ``down`` is given."""
    traces = []
    for sample in data().split(1):
        shape = (1, 2, 4)

        def z_of(delta: Tensor, sample: Tensor = sample) -> Tensor:
            handle = net.blocks[0].down.register_forward_pre_hook(lambda _, args: (args[0] + delta,))
            try:
                return net(sample).flatten()
            finally:
                handle.remove()

        j = torch.autograd.functional.jacobian(z_of, torch.zeros(shape, dtype=torch.float64)).reshape(2, -1)
        traces.append(float(j.square().sum()))  # B = (2/m) I, m = 2 outputs
    return sum(traces) / len(traces)


def test_increases_and_verification_see_functions() -> None:
    ranking = rank(model(), data(), loss="self-mse", estimator="exact", bits=(6, 8))
    names = ["blocks.0.attention.softmax", "blocks.1.add", "blocks.0.mul"]
    found = verify(model(), data(), ranking, bits=8, layers=names, weights=False).to_frame()
    assert (found["measured"] > 0).all()
    assert found["ratio"].between(0.8, 1.25).all()


def test_dropout_in_training_mode_of_its_own_is_a_layer() -> None:
    class Drops(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            if x.isnan().any():
                raise ValueError("NaN")
            return F.dropout(self.fc(x), 0.5, training=True)

    torch.manual_seed(0)
    net = Drops()
    with freeze(net):
        assert [layer.name for layer in Network(net, Batch((torch.ones(1, 3),))).layers] == ["x", "fc", "dropout"]


def test_what_is_made_of_integers_is_no_layer_though_weights_chose_them() -> None:
    """The routing of experts: which, how many, from where."""

    class Routed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate, self.experts = nn.Linear(3, 2), nn.ModuleList([nn.Linear(3, 2), nn.Linear(3, 2)])

        def forward(self, x: Tensor) -> Tensor:
            probabilities = self.gate(x).softmax(-1)
            chosen = probabilities.argmax(-1)
            counts = torch.histc(chosen.float(), bins=2, min=0, max=1) * 1.0
            starts = torch.cumsum(counts, 0, dtype=torch.int32)
            assert int(starts[-1]) == len(x)
            rows = [self.experts[int(i)](row) for i, row in zip(chosen, x, strict=True)]
            return torch.stack(rows) * probabilities.amax(-1, keepdim=True)

    torch.manual_seed(0)
    net = Routed()
    with freeze(net):
        layers = [layer.name for layer in Network(net, Batch((torch.ones(1, 3),))).layers]
    assert [name for name in layers if "experts" not in name] == ["x", "gate", "softmax", "stack", "amax", "mul_1"]


def test_what_writes_in_place_and_returns_it() -> None:
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.out = nn.Linear(3, 3), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            if x.isnan().any():
                raise ValueError("NaN")
            y = self.fc(x)
            y += x
            y = F.relu(y, inplace=True)
            buffer = torch.zeros(len(x), 3)
            buffer[:, 1:] = y[:, 1:]
            return self.out(buffer.mul(2.0))

    torch.manual_seed(0)
    net = InPlace()
    ranking = rank(net, torch.randn(2, 3), loss="self-mse", bits=(8,), estimator="exact")
    order = ranking.to_frame().sort_values("execution_index")["layer"].tolist()
    assert order == ["x", "fc", "add_", "relu", "mul", "out"]
    weight = net.out.weight.detach()
    assert ranking["mul"].trace == pytest.approx(float(weight.square().sum()), rel=1e-5)
    assert ranking["relu"].trace == pytest.approx(4 * float(weight[:, 1:].square().sum()), rel=1e-5)


@pytest.mark.parametrize(
    ("inside", "words", "expected"),
    [
        ("", ["add", "add", "pow", "pow"], ["add", "add_1", "pow_1", "pow_2"]),
        ("a.b", ["add", "mul", "add"], ["a.b.add", "a.b.mul", "a.b.add_1"]),
        ("", ["taken", "taken"], ["taken_1", "taken_2"]),
    ],
)
def test_numbering(inside: str, words: list[str], expected: list[str]) -> None:
    names = Names({"taken"})
    assert [names.for_function(inside, word) for word in words] == expected
