"""Shapes, MACs, ranges, sample axes and broken values, against formulas and hand-made values."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers.zoo import ZOO, images, noise, sequences, vectors
from torch import Tensor, nn

from hessrank.analysis.rank import rank
from hessrank.data.batch import Batch
from hessrank.errors import ModelError
from hessrank.network.frozen_model import freeze
from hessrank.network.layer_facts import LayerFacts, SampleAxis, sample_norms
from hessrank.network.layer_sizes import measure_sizes
from hessrank.network.layer_survey import check_weights, find_ranges, find_sample_axes
from hessrank.network.network import Network


class Matmuls(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        z = x @ y.transpose(1, 2)
        return torch.einsum("bij,bjk->bik", z, y)


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(6, 3, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.w, stride=2).relu()


class Attention(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(x, x, x)


def _facts(model: nn.Module, *inputs: Tensor) -> dict[str, LayerFacts]:
    with freeze(model):
        batch = Batch(inputs)
        return measure_sizes(Network(model, batch), batch)


@pytest.mark.parametrize(
    ("model", "inputs", "expected"),
    [
        pytest.param(
            nn.Sequential(nn.Conv2d(3, 5, 3, padding=1)), (noise(1, 3, 8, 6),), {"0": 8 * 6 * 5 * 3 * 9}, id="conv"
        ),
        pytest.param(
            nn.Sequential(nn.Conv2d(3, 5, 3, stride=2)), (noise(1, 3, 9, 9),), {"0": 4 * 4 * 5 * 3 * 9}, id="stride"
        ),
        pytest.param(
            nn.Sequential(nn.Conv2d(4, 8, (3, 5), groups=4)),
            (noise(1, 4, 8, 8),),
            {"0": 6 * 4 * 8 * 1 * 15},
            id="grouped-conv",
        ),
        pytest.param(
            nn.Sequential(nn.Conv2d(3, 3, 3, dilation=2)), (noise(1, 3, 8, 8),), {"0": 16 * 3 * 3 * 9}, id="dilated"
        ),
        pytest.param(nn.Sequential(nn.Conv1d(2, 3, 4)), (noise(1, 2, 9),), {"0": 6 * 3 * 2 * 4}, id="conv1d"),
        pytest.param(nn.Sequential(nn.Conv3d(2, 3, 2)), (noise(1, 2, 4, 4, 4),), {"0": 27 * 3 * 2 * 8}, id="conv3d"),
        pytest.param(
            nn.Sequential(nn.ConvTranspose2d(4, 6, 2, 2)),
            (noise(1, 4, 5, 7),),
            {"0": 5 * 7 * 4 * 6 * 4},
            id="transposed",
        ),
        pytest.param(
            nn.Sequential(nn.ConvTranspose2d(4, 6, 3, 2, groups=2)),
            (noise(1, 4, 5, 7),),
            {"0": 5 * 7 * 4 * 3 * 9},
            id="grouped-transposed",
        ),
        pytest.param(
            nn.Sequential(nn.Linear(4, 7), nn.ReLU(), nn.Linear(7, 2, bias=False)),
            (noise(1, 4),),
            {"0": 28, "1": 0, "2": 14, "input_1": 0},
            id="linear",
        ),
        pytest.param(nn.Sequential(nn.Linear(4, 7)), (noise(1, 5, 4),), {"0": 5 * 28}, id="linear-at-positions"),
        pytest.param(
            Matmuls(),
            (noise(1, 5, 4), noise(1, 6, 4)),
            {"transpose": 0, "matmul": 5 * 4 * 6, "einsum": 5 * 6 * 4},
            id="matmul",
        ),
        pytest.param(Functional(), (noise(1, 3, 7, 7),), {"conv2d": 9 * 6 * 27, "relu": 0}, id="function"),
        pytest.param(
            Attention(), (noise(1, 2, 5, 4),), {"scaled_dot_product_attention": 2 * 2 * 5 * 5 * 4}, id="attention"
        ),
        pytest.param(
            nn.LSTM(4, 3, 2, batch_first=True, bidirectional=True),
            (noise(1, 5, 4),),
            {"output[0]": 2 * 5 * 12 * (4 + 3) + 2 * 5 * 12 * (6 + 3)},
            id="lstm",
        ),
        pytest.param(nn.Sequential(nn.Embedding(11, 4)), (torch.tensor([[1, 2]]),), {"0": 0}, id="embedding"),
        pytest.param(nn.Sequential(nn.BatchNorm2d(3), nn.MaxPool2d(2)), (images()[:1],), {"0": 0, "1": 0}, id="none"),
    ],
)
def test_macs(model, inputs, expected):
    facts = _facts(model, *inputs)
    assert {name: facts[name].macs for name in expected} == expected
    assert sum(fact.macs for fact in facts.values()) == sum(expected.values())


def test_macs_of_a_reused_module_count_for_each_call():
    facts = _facts(ZOO["recurrent"].build(), vectors()[:1])
    assert [facts[name].macs for name in ("step", "step_dup1", "step_dup2")] == [16, 16, 16]


def test_macs_without_torch_fx():
    facts = _facts(ZOO["wrapped"].build(), images()[:1])
    assert facts["module.conv1"].macs == 4 * 4 * 4 * 3 * 9
    assert facts["module.conv2"].macs == 2 * 2 * 2 * 4 * 9
    assert facts["module.relu"].macs == 0


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        (
            "reused",
            {"x": (3, 6, 6), "conv1": (4, 4, 4), "relu": (4, 4, 4), "conv2": (2, 2, 2), "relu_dup1": (2, 2, 2)},
        ),
        ("tied_embedding", {"embedding": (5, 4), "mix": (5, 4), "decoder": (5, 11)}),
        ("tuple_output", {"x": (4,), "fc": (4,), "one": (2,), "two": (3,)}),
    ],
)
def test_shapes(name, shapes):
    facts = _facts(ZOO[name].build(), ZOO[name].data()[:1])
    assert {layer: fact.shape for layer, fact in facts.items()} == shapes
    assert {layer: fact.numel for layer, fact in facts.items()} == {n: math.prod(s) for n, s in shapes.items()}


# Ranges


def _ranges(model: nn.Module, *batches: Tensor) -> tuple[dict[str, tuple[float, float]], set[str]]:
    with freeze(model):
        first = Batch((batches[0],))
        network = Network(model, first)
        facts = measure_sizes(network, first)
        for number, batch in enumerate(batches):
            find_ranges(network, Batch((batch,), samples=(number,)), facts)
    masked = {name for name, fact in facts.items() if fact.axis.masked is not None}
    return {name: (fact.low, fact.high) for name, fact in facts.items()}, masked


class Lambda(nn.Module):
    """A linear layer that doubles, then any function."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.fc, self.last, self.function = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False), function
        with torch.no_grad():
            self.fc.weight.copy_(2 * torch.eye(2))
            self.last.weight.copy_(torch.eye(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.function(self.fc(x)))


def test_ranges_widen_from_batch_to_batch():
    model = Lambda(torch.relu)
    found, masked = _ranges(
        model, torch.tensor([[1.0, -3.0]]), torch.tensor([[0.5, 2.0]]), torch.tensor([[0.0, 0.1]])
    )
    assert found == {"x": (-3, 2), "fc": (-6, 4), "relu": (0, 4), "last": (0, 4)}
    assert masked == set()


def _mask_first(x: Tensor) -> Tensor:
    return x.masked_fill(torch.tensor([True, False]), float("-inf")).softmax(1)


def test_masked_scores_are_left_out_of_the_range():
    found, masked = _ranges(Lambda(_mask_first), torch.tensor([[1.0, 3.0]]), torch.tensor([[5.0, -1.0]]))
    assert masked == {"masked_fill"}
    assert found["masked_fill"] == (-2, 6)
    assert found["softmax"] == (0, 1)


def test_masked_scores_in_a_ranking():
    ranking = rank(Lambda(_mask_first), torch.tensor([[1.0, 3.0], [5.0, -1.0]]), loss="self-mse", max_probes=2)
    assert any("masked scores in masked_fill" in sentence for sentence in ranking.warnings)
    assert ranking.to_frame()["act_increase_b8"].map(math.isfinite).all()


@pytest.mark.parametrize(
    ("function", "message"),
    [
        pytest.param(torch.log, r"^layer 'log' \(log\) is the first that is NaN, in samples 0: look at", id="nan"),
        pytest.param(
            lambda x: torch.exp(200 * x.abs()), r"^layer 'exp' \(exp\) is the first that is infinite", id="inf"
        ),
        pytest.param(lambda x: (200 * x.abs()).exp() - (200 * x.abs()).exp(), r"^layer 'exp' ", id="inf-then-nan"),
        pytest.param(
            lambda x: x.masked_fill(torch.tensor([True, True]), float("-inf")).softmax(1),
            r"^layer 'softmax' ",
            id="all-masked",
        ),
    ],
)
def test_the_first_broken_layer_is_named(function, message):
    with pytest.raises(ModelError, match=message) as caught:
        rank(Lambda(function), torch.tensor([[1.0, -3.0]]))
    assert "\n" not in str(caught.value)


def test_the_broken_sample_is_named():
    data = torch.tensor([[1.0, 2.0], [2.0, 1.0], [-1.0, 2.0]])
    with pytest.raises(ModelError, match=r"'log' .*NaN, in samples 2"):
        rank(Lambda(torch.log), data)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")], ids=["nan", "inf", "-inf"])
def test_broken_weights_are_named(value):
    model = ZOO["residual"].build()
    check_weights(model)
    with torch.no_grad():
        model.layer2[0].conv1.weight[0, 0, 0, :2] = value
    with pytest.raises(ModelError, match=r"weight 'layer2.0.conv1.weight' holds 2 NaN or infinite of 216 values"):
        check_weights(model)


# Where the samples lie


def _axes(model: nn.Module, data: Tensor) -> tuple[str, dict[str, SampleAxis]]:
    with freeze(model):
        one, pair = Batch((data[:1],)), Batch((data[:2],), samples=(0, 1))
        network = Network(model, one)
        facts = measure_sizes(network, one)
        mixed = find_sample_axes(network, one, pair, facts)
    return mixed, {name: fact.axis for name, fact in facts.items()}


def test_samples_along_the_second_dimension():
    mixed, axes = _axes(ZOO["time_first_inside"].build(), sequences())
    assert mixed == ""
    first, second = SampleAxis(0), SampleAxis(1)
    assert axes == {
        "x": first, "transpose": second, "fc": second, "relu": second, "last": second, "transpose_1": first,
    }  # fmt: skip


def test_windows_in_the_batch_dimension():
    mixed, axes = _axes(ZOO["windows"].build(), images())
    assert mixed == ""
    assert axes["view"] == SampleAxis(0, 1)
    assert {axes[name] for name in ("reshape", "qkv", "softmax", "last")} == {SampleAxis(0, 4)}


class WindowsOutside(nn.Module):
    """Windows along dimension 0 before the samples: they do not lie together."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.fc(torch.cat(x.chunk(2, 1), 0))
        return torch.cat(y.chunk(2, 0), 1)


@pytest.mark.parametrize(
    ("model", "data", "first"),
    [
        pytest.param(ZOO["mixes_samples"].build(), images(), "mean", id="mean-over-the-batch"),
        pytest.param(ZOO["batch_statistics"].build(), images(), "norm", id="batch-norm-without-statistics"),
        pytest.param(
            ZOO["later_samples_see_earlier_ones"].build(), vectors(), "cumsum", id="only-the-second-is-mixed"
        ),
        pytest.param(WindowsOutside(), vectors(), "cat", id="windows-outside"),
    ],
)
def test_the_first_layer_that_mixes_samples(model, data, first):
    assert _axes(model, data)[0] == first


@pytest.mark.parametrize(
    ("axis", "value", "norms"),
    [
        pytest.param(SampleAxis(), torch.tensor([[3.0, 4.0], [0.0, 2.0]]), [5, 2], id="first"),
        pytest.param(SampleAxis(1), torch.tensor([[3.0, 0.0], [4.0, 2.0]]), [5, 2], id="second"),
        pytest.param(SampleAxis(0, 2), torch.tensor([[3.0], [4.0], [0.0], [2.0]]), [5, 2], id="two-rows-each"),
        pytest.param(SampleAxis(1, 2), torch.tensor([[3.0, 4.0, 0.0, 2.0]]), [5, 2], id="two-columns-each"),
    ],
)
def test_norms_by_sample(axis, value, norms):
    assert sample_norms(value, axis, 2).tolist() == pytest.approx(norms)
    whole: Any = sample_norms(value, axis, 1)
    assert whole.tolist() == pytest.approx([math.sqrt(29)])
