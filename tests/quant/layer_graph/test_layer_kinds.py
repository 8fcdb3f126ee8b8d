"""A module and the function that does the same are treated alike: what only moves values needs no quantizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hessrank.analysis.rank import rank
from hessrank.data.batch import Batch
from hessrank.quant.layer_graph.graph import Graph, Node
from hessrank.quant.layer_graph.layer_kinds import passes_grid_on
from hessrank.quant.layer_graph.quantizer_placement import place_quantizers
from hessrank.quant.policy import Policy
from hessrank.quant.prepare import graph_of, prepare

Call = Callable[[Tensor], Tensor]
PICTURE, ROW, VOLUME = (2, 4, 4), (2, 6), (2, 4, 4, 4)
# module, function, shape of a sample, whether the result lies on the grid of what comes in
TWINS: dict[str, tuple[nn.Module, Call, tuple[int, ...], bool]] = {
    "ZeroPad1d": (nn.ZeroPad1d(1), lambda x: F.pad(x, (1, 1)), ROW, True),
    "ZeroPad2d": (nn.ZeroPad2d(1), lambda x: F.pad(x, [1] * 4), PICTURE, True),
    "ZeroPad3d": (nn.ZeroPad3d(1), lambda x: F.pad(x, [1] * 6, value=0.0), VOLUME, True),
    "ConstantPad2d 0": (nn.ConstantPad2d(1, 0.0), lambda x: F.pad(x, [1] * 4, "constant", 0), PICTURE, True),
    "ConstantPad2d -0.0": (nn.ConstantPad2d(1, -0.0), lambda x: F.pad(x, [1] * 4, "constant", -0.0), PICTURE, True),
    "ConstantPad2d 0.7": (nn.ConstantPad2d(1, 0.7), lambda x: F.pad(x, [1] * 4, value=0.7), PICTURE, False),
    "ConstantPad1d 2": (nn.ConstantPad1d(1, 2.0), lambda x: F.pad(x, pad=(1, 1), value=2), ROW, False),
    "ReflectionPad1d": (nn.ReflectionPad1d(1), lambda x: F.pad(x, (1, 1), "reflect"), ROW, True),
    "ReflectionPad2d": (nn.ReflectionPad2d(1), lambda x: F.pad(x, [1] * 4, mode="reflect"), PICTURE, True),
    "ReplicationPad2d": (nn.ReplicationPad2d(1), lambda x: F.pad(x, [1] * 4, mode="replicate"), PICTURE, True),
    "CircularPad1d": (nn.CircularPad1d(1), lambda x: F.pad(x, (1, 1), mode="circular"), ROW, True),
    "CircularPad2d": (nn.CircularPad2d(1), lambda x: F.pad(x, [1] * 4, mode="circular"), PICTURE, True),
    "Upsample": (nn.Upsample(scale_factor=2), lambda x: F.interpolate(x, scale_factor=2), PICTURE, True),
    "Upsample nearest-exact": (
        nn.Upsample(7, mode="nearest-exact"),
        lambda x: F.interpolate(x, 7, mode="nearest-exact"),
        PICTURE,
        True,
    ),
    "Upsample bilinear": (
        nn.Upsample(scale_factor=2, mode="bilinear"),
        lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
        PICTURE,
        False,
    ),
    "Upsample linear": (
        nn.Upsample(scale_factor=2, mode="linear"),
        lambda x: F.interpolate(x, None, 2, "linear"),
        ROW,
        False,
    ),
    "UpsamplingNearest2d": (
        nn.UpsamplingNearest2d(scale_factor=2),
        lambda x: F.interpolate(x, scale_factor=2, mode="nearest"),
        PICTURE,
        True,
    ),
    "UpsamplingBilinear2d": (
        nn.UpsamplingBilinear2d(scale_factor=2),
        lambda x: F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True),
        PICTURE,
        False,
    ),
    "PixelShuffle": (nn.PixelShuffle(2), lambda x: F.pixel_shuffle(x, 2), (4, 2, 2), True),
    "PixelUnshuffle": (nn.PixelUnshuffle(2), lambda x: F.pixel_unshuffle(x, 2), PICTURE, True),
    "ChannelShuffle": (nn.ChannelShuffle(2), lambda x: F.channel_shuffle(x, 2), (4, 2, 2), True),
    "Flatten": (nn.Flatten(), lambda x: x.flatten(1), PICTURE, True),
    "Unflatten": (nn.Unflatten(1, (1, 2)), lambda x: x.unflatten(1, (1, 2)), PICTURE, True),
    "Unfold": (nn.Unfold(2), lambda x: F.unfold(x, 2), PICTURE, True),
    "Fold": (nn.Fold((3, 3), 2), lambda x: F.fold(x, (3, 3), 2), (4, 4), False),
    "MaxPool2d": (nn.MaxPool2d(2), lambda x: F.max_pool2d(x, 2), PICTURE, True),
    "AdaptiveMaxPool2d": (nn.AdaptiveMaxPool2d(2), lambda x: F.adaptive_max_pool2d(x, 2), PICTURE, True),
    "AvgPool2d": (nn.AvgPool2d(2), lambda x: F.avg_pool2d(x, 2), PICTURE, False),
    "AdaptiveAvgPool2d": (nn.AdaptiveAvgPool2d(2), lambda x: F.adaptive_avg_pool2d(x, 2), PICTURE, False),
    "Dropout": (nn.Dropout(0.1), lambda x: F.dropout(x, 0.1, training=False), PICTURE, True),
    "AlphaDropout": (nn.AlphaDropout(0.1), lambda x: F.alpha_dropout(x, 0.1, training=False), PICTURE, True),
    "FeatureAlphaDropout": (
        nn.FeatureAlphaDropout(0.1),
        lambda x: F.feature_alpha_dropout(x, 0.1, training=False),
        PICTURE,
        True,
    ),
    "Softmax": (nn.Softmax(1), lambda x: F.softmax(x, 1), PICTURE, False),
}


class Around(nn.Module):
    """A mixing layer, what is looked at, an activation."""

    def __init__(self, inside: Any, shape: tuple[int, ...]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.before, self.inside = nn.Linear(shape[-1], shape[-1]), inside

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.inside(self.before(x)))


@pytest.mark.parametrize("name", TWINS)
def test_a_module_and_its_function_get_the_same_quantizers(name: str) -> None:
    module, function, shape, moves = TWINS[name]
    data = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    for inside in (module, function):
        model = Around(inside, shape).eval()
        prepared = prepare(model, Policy(), data)
        between = [one.layer for one in prepared.inserted if one.tensor == "activation"][1:-1]
        assert bool(between) != moves
        seen = graph_of(model, Batch((data[:1],), samples=(0,)))
        (layer,) = [node for node in seen.nodes.values() if "before" in node.inputs]
        assert passes_grid_on(layer) is moves


@pytest.mark.parametrize("module", [nn.ConstantPad1d(1, 0.5), nn.ZeroPad1d(1), nn.Upsample(scale_factor=2)], ids=str)
def test_a_ranking_tells_it_too(module: nn.Module) -> None:
    model = Around(module, ROW).eval()
    data = torch.randn(3, *ROW, generator=torch.Generator().manual_seed(0))
    ranked = Graph.of_ranking(rank(model, data, bits=8, max_probes=1, increase_probes=0))
    assert place_quantizers(ranked) == place_quantizers(graph_of(model, Batch((data[:1],), samples=(0,))))


def test_padding_with_minus_infinity_in_front_of_a_max_pooling_needs_no_quantizer() -> None:
    def forward(x: Tensor) -> Tensor:
        return F.max_pool2d(F.pad(x, [1] * 4, value=float("-inf")), 3, 2)

    data = torch.randn(3, *PICTURE, generator=torch.Generator().manual_seed(0))
    prepared = prepare(Around(forward, PICTURE).eval(), Policy(), data)
    assert [one.layer for one in prepared.inserted if one.tensor == "activation"] == ["before", "sigmoid"]
    assert prepared(data).isfinite().all()


def test_what_a_padding_adds_must_be_known() -> None:
    for mode, moves in (("", False), ("constant", False), ("constant 0.5", False), ("constant 0", True)):
        assert passes_grid_on(Node("pad", "pad", ("x",), mode=mode)) is moves
    assert not passes_grid_on(Node("pad", "pad", ("x", "y"), mode="constant 0"))
