"""Tensors that cannot be computed with, and containers of any shape: one line each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hessrank
from hessrank.cli import main
from hessrank.errors import DataError, LoadError

DENSE = torch.arange(1.0, 5).reshape(2, 2)
UNUSABLE: dict[str, tuple[Callable[[], Tensor], str]] = {
    "float8": (lambda: DENSE.to(torch.float8_e4m3fn), "is of type float8_e4m3fn; store it as float32 or bfloat16"),
    "meta": (lambda: DENSE.to("meta"), "is a meta tensor, which holds no values"),
    "sparse": (DENSE.to_sparse, "is a sparse, nested or quantized tensor"),
    "quantized": (
        lambda: torch.quantize_per_tensor(DENSE, 0.1, 0, torch.qint8),
        "is a sparse, nested or quantized tensor",
    ),
    "nested": (lambda: torch.nested.nested_tensor([DENSE, DENSE[:1]]), "is a sparse, nested or quantized tensor"),
    "complex": (lambda: DENSE.to(torch.complex64), "complex"),
    "conjugate": (lambda: DENSE.to(torch.complex64).conj(), "complex"),
}


@pytest.mark.parametrize(("make", "message"), UNUSABLE.values(), ids=UNUSABLE)
def test_what_cannot_be_computed_with_is_said(make: Callable[[], Tensor], message: str, tmp_path: Path) -> None:
    torch.save({"weight": make(), "bias": torch.zeros(2)}, tmp_path / "w.pth")
    with pytest.raises(LoadError, match=message):
        hessrank.load_model(tmp_path / "w.pth", arch=lambda: nn.Linear(2, 2))
    torch.save(make(), tmp_path / "x.pt")
    with pytest.raises(DataError, match=message):
        hessrank.load_data(tmp_path / "x.pt")


def test_a_negative_view_holds_its_values(tmp_path: Path) -> None:
    torch.save(torch.complex(DENSE, DENSE).conj().imag, tmp_path / "x.pt")
    assert torch.equal(hessrank.load_data(tmp_path / "x.pt").dataset[1], -DENSE[1])


def test_samples_without_values_are_refused(tmp_path: Path) -> None:
    torch.save(torch.empty(10**12, 0), tmp_path / "x.pt")
    with pytest.raises(DataError, match="which holds no values"):
        hessrank.load_data(tmp_path / "x.pt")


def circle() -> Any:
    held: dict[str, Any] = {"weight": DENSE}
    held["again"] = held
    return held


def shared() -> Any:
    held: dict[str, Any] = {"x": 1}
    for _ in range(5):
        held = {f"k{index}": held for index in range(200)}
    return held


@pytest.mark.timeout(20)
@pytest.mark.parametrize("make", [circle, shared])
def test_containers_that_hold_each_other_are_looked_at_once(make: Callable[[], Any], tmp_path: Path) -> None:
    torch.save(make(), tmp_path / "w.pth")
    with pytest.raises(LoadError, match="no network and no state dict in it, but a dict of"):
        hessrank.load_model(tmp_path / "w.pth", arch=lambda: nn.Linear(2, 2))


def test_memory_that_runs_out_anywhere_is_one_line(monkeypatch, capsys) -> None:
    def full(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("hessrank.cli.load_inputs.read_inputs", full)
    assert main(["rank", "m.pth"]) == 2
    assert capsys.readouterr().err.startswith("error: out of memory")
