"""Models that return anything, or what ONNX has no word for: a file of their tensors, or one line on why not."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.zoo import noise
from torch import Tensor, nn

from hessrank import Policy, prepare
from hessrank.errors import ModelError
from hessrank.quant.export import ExportError, ExportReport, export_onnx

Pair = namedtuple("Pair", "logits relu")


class Returning(nn.Module):
    """A linear layer and what is made of its input and output."""

    def __init__(self, returned: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.a, self.returned = nn.Linear(4, 4), returned

    def forward(self, x: Tensor) -> Any:
        return self.returned(x, self.a(x))


def exported(model: nn.Module, path: Path) -> ExportReport:
    x = noise(4, 4, seed=1)
    return export_onnx(prepare(model.eval(), Policy(), x), path / "m.onnx", x, dynamic=False)


@pytest.mark.parametrize(
    ("returned", "outputs"),
    [
        pytest.param(lambda x, y: Pair(y, y.relu()), ["a", "relu"], id="named tuple"),
        pytest.param(lambda x, y: torch.topk(y, 2), ["getitem", "getitem_1"], id="tuple of one function"),
        pytest.param(lambda x, y: (y, y, {"n": None}, 3), ["a"], id="twice, and no tensors"),
        pytest.param(lambda x, y: (y, x), ["a", "x_1"], id="the input"),
    ],
)
def test_file_has_each_tensor_that_is_returned_once(
    returned: Callable[[Tensor, Tensor], Any], outputs: list[str], tmp_path: Path
) -> None:
    assert list(exported(Returning(returned), tmp_path).outputs) == outputs


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        pytest.param(lambda x, y: torch.special.bessel_j0(y), "no operator for 'bessel_j0' in", id="operator"),
        pytest.param(lambda x, y: y + torch.rand_like(y), "gives another output each time", id="random"),
    ],
)
def test_refusal_says_what_is_wrong(returned: Callable[[Tensor, Tensor], Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=words):
        exported(Returning(returned), tmp_path)
    assert not list(tmp_path.iterdir())


def test_module_with_a_dot_in_its_name_is_refused(tmp_path: Path) -> None:
    model = Returning(lambda x, y: y)
    setattr(model, "b.c", nn.Linear(4, 4))
    with pytest.raises(ModelError, match=r"the module 'b\.c' has a dot in its name: call it 'b_c'"):
        exported(model, tmp_path)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        pytest.param(torch.zeros(0, 4), r"^input 'x' is empty \(0×4\)", id="no sample"),
        pytest.param(torch.full((2, 4), torch.nan), "^input 'x' holds NaN or infinity", id="NaN"),
    ],
)
def test_inputs_on_which_nothing_can_be_compared_are_refused(x: Tensor, words: str, tmp_path: Path) -> None:
    prepared = prepare(Returning(lambda x, y: y).eval(), Policy(), noise(4, 4, seed=1))
    with pytest.raises(ExportError, match=words):
        export_onnx(prepared, tmp_path / "m.onnx", x)
