"""The bit configurations that HAWQ-V3 published for ResNet-18 follow from its published traces."""

import json
from itertools import product
from typing import Any

import numpy as np
import pytest
from helpers.places import SHARED

from hessrank.quant.bit_choice.allocation.allocate import Limit, allocate

FIGURES = SHARED / "hawqv3_resnet18.json"
NAMES = [f"{cost}_{share}" for cost in ("size", "bops", "latency") for share in ("0.25", "0.5", "0.75")]


@pytest.fixture(scope="module")
def figures() -> Any:
    if not FIGURES.is_file():
        pytest.skip("HAWQ-V3's figures are not here")
    return json.loads(FIGURES.read_text(encoding="utf-8"))


def increase_of(trace: list[float], at_4: list[float], at_8: list[float]) -> np.ndarray:
    return np.array(trace)[:, None] * np.stack([at_4, at_8], axis=1)


def limit_of(name: str, cost: np.ndarray, share: float) -> Limit:
    low, high = cost.sum(axis=0)
    return Limit(name, low + share * (high - low), cost)


@pytest.mark.parametrize("name", NAMES)
def test_a_published_configuration_comes_out(name: str, figures: Any) -> None:
    kind, share = name.split("_")
    costs = {
        "size": np.outer(figures["parameters"], [4, 8]),
        "bops": np.outer(figures["bops_32bit"], [(4 / 32) ** 2, (8 / 32) ** 2]),
        "latency": np.stack([figures["latency_int4"], figures["latency_int8"]], axis=1),
    }
    increase = increase_of(
        figures["average_weight_trace"], figures["weight_error_sq_4bit"], figures["weight_error_sq_8bit"]
    )
    found = allocate(increase, [limit_of(kind, costs[kind], float(share))], tied=figures["tied_layers"])
    assert [4 if option == 0 else 8 for option in found.choice] == figures["published"][name]


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_a_small_network_of_that_kind_is_solved_as_by_trying_everything(share: float) -> None:
    increase = increase_of(
        [0.069, 0.032, 0.012, 0.0060, 0.0021, 0.0008],
        [6.7, 4.0, 2.7, 10.6, 21.8, 36.4],
        [0.02, 0.01, 0.01, 0.03, 0.07, 0.1],
    )
    limit = limit_of("size", np.outer([1, 1, 2, 4, 16, 64], [4, 8]), share)
    choices = [c for c in product((0, 1), repeat=6) if c[1] == c[3] and limit.value(c) <= limit.most]
    best = min(choices, key=lambda c: increase[range(6), c].sum())
    assert allocate(increase, [limit], tied=[[1, 3]]).choice.tolist() == list(best)
