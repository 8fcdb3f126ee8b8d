"""A trained state comes back whole, or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.zoo import noise
from torch import nn

from hessrank.errors import HessrankError, LoadError
from hessrank.quant.policy import Policy
from hessrank.quant.prepare import QuantizedModel, load_state, prepare

DATA = noise(4, 3, 6, 6, seed=1)


def prepared(bits: int = 4, method: str = "lsq", seed: int = 0) -> QuantizedModel:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2))
    scheme = {"w_qscheme": {"bit": bits}, "a_qscheme": {"bit": bits}}
    methods = {"w_fakequantize": method, "a_fakequantize": method}
    return prepare(model, Policy.of({"extra_qconfig_dict": scheme | methods}), DATA)


@pytest.mark.parametrize(
    "wrap",
    [dict, lambda s: {"model": s}, lambda s: {"state_dict": s, "epoch": 3}],
    ids=["bare", "under model", "under state_dict"],
)
def test_what_was_trained_is_what_is_loaded(wrap: Any, tmp_path: Path) -> None:
    trained = prepared(seed=1)
    optimizer = torch.optim.SGD(trained.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        trained.train()(DATA).square().sum().backward()
        optimizer.step()
    torch.save(wrap(trained.state_dict()), tmp_path / "trained.pth")
    other = prepared()
    load_state(other, tmp_path / "trained.pth")
    assert torch.equal(other.eval()(DATA), trained.eval()(DATA))


def test_a_state_of_other_bits_or_another_method_is_refused(tmp_path: Path) -> None:
    torch.save(prepared(8).state_dict(), tmp_path / "eight.pth")
    with pytest.raises(HessrankError, match=r"8 per_.*4 per_"):
        load_state(prepared(4), tmp_path / "eight.pth")
    torch.save(prepared(method="fixed").state_dict(), tmp_path / "fixed.pth")
    with pytest.raises(HessrankError):
        load_state(prepared(), tmp_path / "fixed.pth")


def test_missing_and_unexpected_keys_are_named(tmp_path: Path) -> None:
    state = prepared().state_dict()
    state["4.wieght"] = state.pop("4.weight")
    torch.save(state, tmp_path / "typo.pth")
    with pytest.raises(LoadError, match=r"typo\.pth: the weights do not fit.*4\.weight") as caught:
        load_state(prepared(), tmp_path / "typo.pth")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (torch.zeros(3), "holds a Tensor, not a state dict"),
        (nn.Linear(2, 2).state_dict(), "holds no quantizers"),
        (None, "there is no such file"),
    ],
    ids=["tensor", "float", "missing"],
)
def test_files_that_are_no_state_are_refused(content: Any, says: str, tmp_path: Path) -> None:
    if content is not None:
        torch.save(content, tmp_path / "state.pth")
    with pytest.raises(LoadError, match=says):
        load_state(prepared(), tmp_path / "state.pth")
