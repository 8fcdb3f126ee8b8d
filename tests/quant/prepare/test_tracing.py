"""A traced copy: the same function, the same names, nothing of the user's touched."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers.zoo import noise
from torch import Tensor, nn

from hessrank.analysis.rank import rank
from hessrank.data.batch import Batch
from hessrank.errors import ModelError
from hessrank.quant.layer_graph.graph import Graph
from hessrank.quant.layer_graph.quantizer_placement import place_quantizers
from hessrank.quant.prepare.tracing import graph_of, trace


def batch(*shape: int, **kwargs: Any) -> Batch:
    return Batch((noise(*shape, seed=1),), kwargs, samples=(0,))


class Defaults(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor, mask: Tensor | None = None, gain: float = 2.0, double: bool = False) -> Tensor:
        y = self.linear(x) * gain
        if mask is not None:
            y = y * mask
        return F.dropout(y + y if double else y, 0.5, self.training)


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return self.linear(x)
        return x


def test_arguments_that_were_not_given_keep_their_defaults() -> None:
    model = Defaults().eval()
    traced = trace(model, batch(2, 4))
    x = noise(3, 4, seed=2)
    assert torch.equal(traced.module(x), model(x))
    assert [str(n.target) for n in traced.module.graph.nodes if n.op == "placeholder"] == ["x"]


def test_arguments_that_were_given_stay_arguments() -> None:
    model = Defaults().eval()
    x, mask = noise(3, 4, seed=2), noise(3, 4, seed=3)
    traced = trace(model, Batch((x,), {"mask": mask}, samples=(0,)))
    assert torch.equal(traced.module(x, mask=mask), model(x, mask))


def test_a_functional_dropout_still_follows_the_mode() -> None:
    traced = trace(Defaults().train(), batch(2, 4))
    x = noise(64, 4, seed=2)
    dropped = traced.module.train()(x)
    assert 0.3 < float((dropped == 0).float().mean()) < 0.7
    assert not (traced.module.eval()(x) == 0).any()


def test_the_copy_has_its_own_weights() -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    traced = trace(model, batch(1, 4))
    assert traced.module.get_parameter("0.weight") is not model[0].weight
    assert torch.equal(traced.module.get_parameter("0.weight"), model[0].weight)


def test_layers_are_found_by_the_rankings_names() -> None:
    class Reused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.act = nn.Conv2d(1, 2, 3), nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            y = self.act(self.a(x))
            return torch.cat([self.act(-y), y], 1)

    traced = trace(Reused(), batch(1, 1, 5, 5))
    assert list(traced.nodes) == ["x", "a", "act", "neg", "act_dup1", "cat"]
    assert traced.nodes["act_dup1"].target == "act"
    assert traced.graph["a"].weight == "a.weight"
    assert traced.graph["cat"].inputs == ("act_dup1", "act")


def test_what_cannot_be_traced_is_named_by_file_and_line() -> None:
    with pytest.raises(
        ModelError, match=r"test_tracing\.py:\d+: if x\.sum\(\) > 0:: torch\.fx cannot trace"
    ) as caught:
        trace(Branching(), batch(1, 4))
    assert "move what depends on values or shapes" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_of_torchs_own_networks_no_line_is_blamed() -> None:
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), 1)
    with pytest.raises(
        ModelError, match=r"^torch\.fx cannot trace TransformerEncoder, which is torch's own"
    ) as caught:
        trace(model, batch(1, 3, 4))
    assert ".py:" not in str(caught.value)


def test_the_graph_of_an_untraceable_model_can_still_be_had() -> None:
    assert graph_of(Branching(), batch(1, 4))["linear"].inputs == ("x",)


def test_modules_with_weights_that_cannot_be_looked_into_are_listed() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.lstm(x)[0]
            return y

    assert graph_of(Recurrent(), batch(3, 2, 4)).opaque == ("lstm",)


def test_the_users_model_is_left_as_it_was() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(inplace=True)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trace(model, batch(1, 1, 5, 5))
    assert model.training
    assert model[2].inplace
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.requires_grad for p in model.parameters())


def test_the_graph_of_a_ranking_is_the_graph_of_the_model() -> None:
    """Down to the weights that nobody can look into."""

    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.lstm, self.head = nn.Embedding(5, 4), nn.LSTM(4, 4, batch_first=True), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.head(self.lstm(self.embed(x))[0])
            return y

    torch.manual_seed(0)
    model, rows = Recurrent(), torch.arange(10).reshape(2, 5) % 5
    ranked = Graph.of_ranking(rank(model, rows, bits=8, max_probes=1))
    traced = graph_of(model, Batch((rows[:1],), samples=(0,)))
    assert ranked.opaque == traced.opaque == ("lstm",)
    assert place_quantizers(ranked) == place_quantizers(traced)
