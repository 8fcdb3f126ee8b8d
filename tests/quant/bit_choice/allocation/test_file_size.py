"""The size that a policy promises is that of the file that is exported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hessrank import export_onnx, make_policy, prepare, rank, summarize
from hessrank.quant.export.integers import integer_type
from hessrank.quant.quantizers import Grid
from hessrank.quant.scheme import Scheme, stored_bits

pytest.importorskip("onnxruntime")


class OwnConvolution(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (1, 1, 1, 1)), self.weight, self.bias)


class Words(nn.Module):
    """A table, a recurrent layer that stays in float, a norm, an output layer."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.cell = nn.Embedding(3000, 256), nn.LSTM(256, 64, batch_first=True)
        self.places, self.norm = nn.Parameter(torch.randn(1, 5, 256)), nn.LayerNorm(64)
        self.out = nn.Linear(64, 9000)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.out(self.norm(self.cell(self.words(x) + self.places)[0])[:, -1])
        return y


def _convolutions() -> tuple[nn.Module, Any]:
    parts = [nn.Conv2d(3, 128, 3, bias=False), nn.BatchNorm2d(128), nn.ReLU(), nn.Conv2d(128, 300, 3)]
    parts += [nn.BatchNorm2d(300), nn.ReLU(), nn.Conv2d(300, 700, 3, bias=False), nn.BatchNorm2d(700), nn.Flatten()]
    model = nn.Sequential(*parts)
    for module in model:
        if isinstance(module, nn.BatchNorm2d):  # as trained: no two are equal
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                tensor.data.uniform_(0.5, 2)
    return model, torch.randn(2, 3, 7, 7)


def _words() -> tuple[nn.Module, Any]:
    return Words(), torch.randint(0, 3000, (2, 5))


def _own_class() -> tuple[nn.Module, Any]:
    return nn.Sequential(OwnConvolution(3, 200, 3), nn.ReLU(), nn.Conv2d(200, 900, 3)), torch.randn(2, 3, 3, 3)


def _transposed() -> tuple[nn.Module, Any]:
    parts = [nn.ConvTranspose2d(64, 512, 4, bias=False), nn.ReLU(), nn.ConvTranspose2d(512, 512, 4, 2, 1)]
    return nn.Sequential(*parts), torch.randn(2, 64, 1, 1)


CASES: dict[str, tuple[Callable[[], tuple[nn.Module, Any]], int, str]] = {
    "convolutions and norms": (_convolutions, 4, "per_channel_affine"),
    "words": (_words, 8, "per_tensor_symmetric"),
    "a class of one's own": (_own_class, 10, "per_channel_affine"),
    "transposed convolutions": (_transposed, 6, "per_channel_symmetric"),
}


@pytest.mark.parametrize("name", CASES)
def test_the_size_that_is_promised_is_that_of_the_file(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    make, bits, scheme = CASES[name]
    model, data = make()
    model.eval()
    ranking = rank(model, data, bits=bits, max_probes=1, num_samples=1, increase_probes=0)
    policy = make_policy(ranking, "uniform", base_bits=bits, weight_scheme=scheme)
    promised = summarize(policy, ranking)
    file = export_onnx(prepare(model, policy, data), tmp_path / "m.onnx", data, check=False)
    assert file.file_bytes > 2**20
    assert promised.costs.size_mib * 2**20 == pytest.approx(file.file_bytes, rel=0.02)
    assert promised.in_float.size_mib * 2**20 == pytest.approx(file.float_bytes, rel=0.02)


def test_a_budget_of_size_is_kept_by_the_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, data = _convolutions()
    model.eval()
    ranking = rank(model, data, bits=(4, 8, 10), max_probes=1, num_samples=1)
    policy = make_policy(ranking, "budget", bits=(4, 8, 10), budget_size_mib=2.0)
    file = export_onnx(prepare(model, policy, data), tmp_path / "m.onnx", data, check=False)
    assert 1.2 < file.file_bytes / 2**20 < 2.02


@pytest.mark.parametrize("symmetric", [False, True], ids=["affine", "symmetric"])
@pytest.mark.parametrize("bits", range(2, 17))
def test_the_width_that_is_counted_is_that_of_the_integer_type(bits: int, symmetric: bool) -> None:
    scheme = Scheme(bits, symmetric=symmetric)
    zero_point = torch.tensor(0 if symmetric else scheme.quant_max)
    grid = Grid(torch.tensor(1.0), zero_point, scheme.quant_min, scheme.quant_max, None)
    assert integer_type(grid).bits == stored_bits(bits)
