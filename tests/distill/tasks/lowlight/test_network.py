"""The network: published size and names, shapes, module calls, size errors."""

from __future__ import annotations

import operator
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import fx

from hessrank.distill.tasks.lowlight import LowLight
from hessrank.errors import DataError

# every layer that the first user's run file names (calls; the second call of a module is `_dup1`)
NAMED = [
    *(f"DBF.DBF_conv1.{part}" for part in ("Conv1", "lrelu", "Conv2")),
    *(f"DBF.DBF_conv9.{part}" for part in ("Conv2", "lrelu_dup1")),
    "DBF.DBF_out",
    *(f"DBLE.{branch}_conv1.{part}" for branch in ("color", "mono") for part in ("Conv1", "lrelu", "Conv2")),
    *(f"DBLE.dual_conv9.{part}" for part in ("Conv1", "lrelu", "Conv2", "lrelu_dup1")),
    "DBLE.DBLE_out",
]


@pytest.fixture(scope="module")
def published():
    return LowLight()


@pytest.fixture(scope="module")
def graph():
    return fx.symbolic_trace(LowLight(4, 8)).graph


def called_names(graph: fx.Graph) -> list[str]:
    seen: Counter[str] = Counter()
    names = []
    for node in graph.nodes:
        if node.op == "call_module":
            names.append(node.target + (f"_dup{seen[node.target]}" if seen[node.target] else ""))
            seen[node.target] += 1
    return names


def published_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the published parameters, written out from the description of the network."""
    shapes: dict[str, tuple[int, ...]] = {}

    def conv(name: str, cin: int, cout: int, kernel: int, *, transposed: bool = False) -> None:
        shapes[f"{name}.weight"] = ((cin, cout) if transposed else (cout, cin)) + (kernel, kernel)
        shapes[f"{name}.bias"] = (cout,)

    def two(name: str, cin: int, cout: int) -> None:
        conv(f"{name}.Conv1", cin, cout, 3)
        conv(f"{name}.Conv2", cout, cout, 3)

    for i, (cin, cout) in enumerate([(1, 8), (8, 16), (16, 32), (32, 64), (64, 128)], start=1):
        two(f"DBF.DBF_conv{i}", cin, cout)
    for i, (cin, cout) in enumerate([(128, 64), (64, 32), (32, 16), (16, 8)]):
        conv(f"DBF.DBF_upv{5 + i}", cin, cout, 2, transposed=True)
        two(f"DBF.DBF_conv{6 + i}", cin, cout)
    conv("DBF.DBF_out", 8, 1, 3)
    for branch in ("color", "mono"):
        for i, (cin, cout) in enumerate([(4, 32), (32, 64), (64, 128), (128, 256), (256, 512)], start=1):
            two(f"DBLE.{branch}_conv{i}", cin, cout)
        conv(f"DBLE.{branch}_up5", 512, 256, 2, transposed=True)
    for i, (cin, cout) in enumerate([(1024, 256), (384, 128), (192, 64), (96, 32)], start=6):
        two(f"DBLE.dual_conv{i}", cin, cout)
        conv(f"DBLE.channel_attention{i}.conv_du.0", cin, cin // 16, 1)
        conv(f"DBLE.channel_attention{i}.conv_du.2", cin // 16, cin, 1)
        if i < 9:
            conv(f"DBLE.dual_up{i}", cout, cout // 2, 2, transposed=True)
    conv("DBLE.DBLE_out", 32, 12, 1)
    return shapes


def test_published_size(published):
    assert sum(p.numel() for p in published.parameters()) == 15_013_791


def test_published_checkpoint_loads(published, tmp_path: Path):
    generator = torch.Generator().manual_seed(0)
    state = {name: torch.randn(shape, generator=generator) for name, shape in published_shapes().items()}
    torch.save({"model": state}, tmp_path / "published.pth")
    loaded = torch.load(tmp_path / "published.pth", weights_only=True)["model"]
    result = published.load_state_dict(loaded)
    assert not result.missing_keys
    assert not result.unexpected_keys
    assert torch.equal(published.DBLE.dual_conv9.Conv2.weight, state["DBLE.dual_conv9.Conv2.weight"])


@pytest.mark.parametrize("name", NAMED)
def test_named_layer_is_called(graph, name):
    assert name in called_names(graph)


def test_calls(graph):
    names = called_names(graph)
    assert len(names) == 138
    functions = Counter(node.target for node in graph.nodes if node.op == "call_function")
    assert functions == {torch.cat: 8, operator.mul: 4}
    kinds = Counter(type(LowLight(4, 8).get_submodule(name.split("_dup")[0])).__name__ for name in names)
    assert kinds["MaxPool2d"] == 12
    assert kinds["LeakyReLU"] == 46
    assert kinds["PixelUnshuffle"] + kinds["PixelShuffle"] == 3
    assert kinds["AdaptiveAvgPool2d"] == 4
    assert kinds["ConvTranspose2d"] == 9


@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 96)])
def test_shapes(height, width):
    mono, rgb = LowLight(4, 8)(torch.rand(2, 1, height, width))
    assert mono.shape == (2, 1, height, width)
    assert rgb.shape == (2, 3, height, width)


def test_traced_equals_eager():
    torch.manual_seed(0)
    network, raw = LowLight(4, 8), torch.rand(1, 1, 32, 64)
    for eager, traced in zip(network(raw), fx.symbolic_trace(network)(raw), strict=True):
        assert torch.equal(eager, traced)


def test_no_activation_after_the_outputs():
    network = LowLight(4, 8)
    with torch.no_grad():
        for head in (network.DBF.DBF_out, network.DBLE.DBLE_out):
            head.weight.zero_()
            head.bias.fill_(-3.0)
        for picture in network(torch.rand(1, 1, 32, 32)):
            assert torch.equal(picture, torch.full_like(picture, -3.0))


@pytest.mark.parametrize("shape", [(1, 1, 48, 64), (1, 1, 64, 33), (1, 3, 64, 64), (1, 64, 64)])
def test_wrong_size_is_one_line(shape):
    with pytest.raises(DataError) as caught:
        LowLight(4, 8)(torch.rand(shape))
    assert "×".join(map(str, shape)) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_narrowest_attention_keeps_one_channel():
    assert LowLight(1, 2).DBLE.channel_attention9.conv_du[0].out_channels == 1
