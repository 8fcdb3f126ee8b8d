"""Tensors in nests, visited."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hessrank.network.walks.call import Call, first_tensor, visit_nest, visit_tensor

ONE, TWO = torch.ones(1), torch.full((1,), 2.0)


def call_at(place: str) -> Call:
    return Call("layer" + place, "LSTM", None, None, None)


def test_every_floating_tensor_is_visited_by_its_place() -> None:
    seen: list[str] = []

    def visit(call: Call, value: Tensor) -> Tensor:
        seen.append(call.name)
        return value * 10

    nest: Any = (ONE, {"h": TWO, "n": torch.tensor([3])}, None)
    found = visit_nest(nest, call_at, visit)
    assert seen == ["layer[0]", "layer[1]['h']"]
    assert (found[0].item(), found[1]["h"].item(), found[1]["n"].item(), found[2]) == (10, 20, 3, None)
    assert visit_nest([ONE], call_at, visit)[0].item() == 10
    assert seen[-1] == "layer"  # a single one has the bare name


def test_whole_numbers_go_by_unseen() -> None:
    def refuse(call: Call, value: Tensor) -> Tensor:
        raise AssertionError(call.name)

    counts = torch.tensor([3])
    assert visit_tensor(call_at(""), counts, refuse) is counts
    assert visit_nest((counts, 3), call_at, refuse) == (counts, 3)


def test_the_first_tensor_is_what_is_convolved() -> None:
    assert first_tensor((ONE, TWO), {}) is ONE
    assert first_tensor((3,), {"input": TWO}) is TWO
    assert first_tensor((3,), {}) is None
