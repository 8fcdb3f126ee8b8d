"""Weights and the names of a network."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hessrank.errors import LoadError
from hessrank.models.match_weights import fits, ignored_notes, load_weights, without_ignored

STATE = {"weight": torch.ones(1, 2), "bias": torch.zeros(1)}


def test_weights_are_put_in_with_their_type() -> None:
    model = nn.Linear(2, 1)
    halves = {f"module.{name}": value.half() for name, value in STATE.items()}
    assert load_weights(model, halves, source="x.pth") == ("removed 'module.' from 2 keys", "weights are float16")
    assert model.weight.dtype == torch.float16
    assert model.weight.tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize(
    ("state", "why"),
    [
        ({"weight": STATE["weight"]}, "missing from the file: bias"),
        ({**STATE, "wieght": torch.zeros(1)}, r"not in the network: wieght \(nearest is 'weight'\)"),
        ({**STATE, "bias": torch.zeros(3)}, "bias is 3 in the file, 1 in the network"),
        ({**STATE, "bias": torch.zeros(1, dtype=torch.int64)}, "not of a floating type.*bias is int64"),
    ],
)
def test_what_does_not_fit_is_named(state: dict[str, torch.Tensor], why: str) -> None:
    assert fits(nn.Linear(2, 1), state) == (state.keys() == STATE.keys())
    with pytest.raises(LoadError, match=why):
        load_weights(nn.Linear(2, 1), state, source="x.pth")


def test_patterns_leave_out_only_what_the_network_lacks() -> None:
    state = {**STATE, "pooler.weight": torch.zeros(1)}
    kept, ignored = without_ignored(nn.Linear(2, 1), state, ["pooler.*", "weight"])
    assert list(kept) == ["weight", "bias"]
    assert ignored == ("pooler.weight",)
    assert fits(nn.Linear(2, 1), state, ["pooler.*"])
    assert "left out 1 of the file" in ignored_notes(ignored, ["pooler.*"])[0]
    assert "the file has no such key" in ignored_notes((), ["x.*"])[0]
    assert ignored_notes((), ()) == ()


def test_a_tied_weight_is_there_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Linear(2, 2, bias=False)
            self.other = nn.Linear(2, 2, bias=False)
            self.other.weight = self.one.weight

    model = Tied()
    assert load_weights(model, {"one.weight": torch.eye(2)}, source="x.pth") == (
        "other.weight is tied to one.weight",
    )
    assert torch.equal(model.other.weight, torch.eye(2))
