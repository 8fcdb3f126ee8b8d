"""Half precision: traces near those of float32, gradients of any size, sums that do not saturate."""

from typing import Any

import numpy as np
import pytest
import torch
from helpers.rankings import Curved
from torch import Tensor, nn

from hessrank.analysis.rank import rank
from hessrank.errors import ModelError, UnknownNameError

HALF = pytest.mark.parametrize("precision", ["bf16", "16"])


def _both(model: nn.Module, data: Any, precision: str, **options: Any) -> list[Any]:
    settings = {"max_probes": 8, "tolerance": 1e-6, "bits": (12,), "estimator": "gauss-newton", **options}
    return [rank(model, data, precision=p, **settings) for p in ("32", precision)]


def _assert_close(one: Any, other: Any, rtol: float, columns: tuple[str, ...]) -> None:
    frames = [ranking.to_frame().set_index("layer") for ranking in (one, other)]
    for column in columns:
        np.testing.assert_allclose(frames[1].loc[frames[0].index, column], frames[0][column], rtol=rtol)


@HALF
@pytest.mark.parametrize("copies", ["side by side", "alone"])
def test_traces_and_increases_of_convolutions_are_near(
    precision: str, copies: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hessrank.analysis.rank._COPIES", 8 if copies == "side by side" else 1)
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.ConvTranspose2d(8, 8, 2),
        nn.LeakyReLU(),
        nn.Conv2d(8, 3, 3),
    ).eval()
    full, half = _both(model, torch.randn(2, 3, 12, 12), precision, loss="self-mse")
    _assert_close(full, half, 0.03, ("trace", "weight_trace"))


@HALF
def test_traces_of_a_transformer_block_are_near(precision: str) -> None:
    torch.manual_seed(0)
    full, half = _both(Curved().eval(), torch.randn(4, 3, 6), precision, loss="self-mse", estimator="exact")
    _assert_close(full, half, 0.05, ("trace", "weight_trace"))


class _Scaled(nn.Module):
    """Two layers with a factor between them: gradients before it are that much smaller or larger."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.first, self.second, self.factor = nn.Linear(6, 8), nn.Linear(8, 40), factor

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x) * self.factor)


@HALF
@pytest.mark.parametrize("factor", [1e-5, 3e3])
def test_gradients_of_any_size_are_resolved(precision: str, factor: float) -> None:
    """float16 ends at 6e-8 and at 65504: unscaled, the first gradients would be 0, and the second infinite."""
    torch.manual_seed(0)
    full, half = _both(_Scaled(factor), torch.randn(3, 6) / max(1.0, factor), precision, loss="self-mse")
    _assert_close(full, half, 0.02, ("trace", "weight_trace"))


def test_a_sum_does_not_saturate() -> None:
    """A bfloat16 sum of equal numbers stops growing at 256 of them."""
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1))
    with torch.no_grad():
        for layer in model:
            layer.weight.fill_(1), layer.bias.zero_()
    full, half = _both(model, torch.randn(1, 1, 300, 300), "bf16", loss="self-mse", max_probes=2)
    _assert_close(full, half, 0.01, ("trace",))


def test_gradients_without_a_common_scale_are_an_error() -> None:
    class Endless(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            hidden = self.first(x)
            hidden.register_hook(lambda slope: slope * torch.inf) if hidden.requires_grad else None
            return self.second(hidden)

    with pytest.raises(ModelError, match="gradients overflow float16 at every scale: use precision bf16"):
        rank(Endless(), torch.randn(2, 2), loss="self-mse", precision="16")


def test_second_order_estimators_stay_in_float32_and_say_so() -> None:
    torch.manual_seed(0)
    model, data = Curved(), (torch.randn(2, 3, 6), torch.tensor([0, 1]))
    full, half = _both(model, data, "bf16", loss="cross-entropy", estimator="hutchinson", increase_probes=0)
    np.testing.assert_array_equal(half.to_frame()["trace"], full.to_frame()["trace"])
    assert "half precision is for first-order passes: hutchinson worked in the network's own" in half.warnings


def test_an_unknown_precision_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="no precision named 'fp16'; nearest is 'bf16'"):
        rank(nn.Linear(2, 2), torch.randn(2, 2), precision="fp16")
