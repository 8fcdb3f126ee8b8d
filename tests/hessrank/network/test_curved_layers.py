"""What counts as curved: compared with second differences of the functions themselves."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers.zoo import noise
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from hessrank.data.batch import Batch
from hessrank.network.curved_layers import find_curved_downstream
from hessrank.network.frozen_model import freeze
from hessrank.network.network import Network


class TimesTwo(torch.autograd.Function):
    """Linear, but nobody can know."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        return slope * 2


def _conv(*args: int, **kwargs: Any) -> nn.Module:
    torch.manual_seed(0)
    return nn.Conv2d(*args, **kwargs).double().requires_grad_(False)


def _frozen(module: nn.Module) -> nn.Module:
    return module.double().eval().requires_grad_(False)


def _masked(x: Tensor) -> Tensor:
    return x.masked_fill(torch.eye(4, dtype=torch.bool), -1.0) + torch.where(torch.eye(4) > 0, x, -x)


def _assigned(x: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    y.copy_(3 * x)
    return y


GRID = noise(2, 4, 4, 2, seed=5, dtype=torch.float64).tanh()
CONSTANT = noise(2, 4, 4, 4, seed=6, dtype=torch.float64)

# All take and return float64 tensors; x is 2×4×4×4.
FLAT = {
    "add-sub-neg-sum-mean": lambda x: -x + 3 - x.mean(1, keepdim=True) + x.sum((2, 3), keepdim=True),
    "scalar-product": lambda x: x * 3,
    "constant-product": lambda x: x * CONSTANT,
    "scalar-quotient": lambda x: x / 3,
    "constant-quotient": lambda x: x / CONSTANT,
    "shapes": lambda x: x.permute(1, 0, 2, 3).contiguous().flatten(1).unsqueeze(0).expand(2, -1, -1).reshape(-1),
    "parts": lambda x: torch.cat([*x.chunk(2, 1), x[:, 1:3], torch.stack(x.unbind(1)[:2], 1), x.roll(1, 2)], 1),
    "gathers": lambda x: x.index_select(1, torch.tensor([0, 2])) + x[:, torch.tensor([1, 1])] + x.flip(1)[:, :2],
    "masks": _masked,
    "assignment": _assigned,
    "matmul-constant": lambda x: x @ CONSTANT,
    "einsum-constant": lambda x: torch.einsum("bchw,bcwv->bchv", x, CONSTANT),
    "linear": _frozen(nn.Linear(4, 3)),
    "convolution": _conv(4, 3, 3),
    "grouped-convolution": _conv(4, 8, 3, groups=4, stride=2),
    "transposed-convolution": _frozen(nn.ConvTranspose2d(4, 3, 2, 2)),
    "reflection-padding": _conv(4, 3, 3, padding=1, padding_mode="reflect"),
    "replication-padding": _conv(4, 3, 3, padding=1, padding_mode="replicate"),
    "batch-norm-eval": _frozen(nn.BatchNorm2d(4)),
    "dropout-eval": _frozen(nn.Dropout(0.5)),
    "relu": F.relu,
    "leaky-relu": lambda x: F.leaky_relu(x, 0.2),
    "prelu": _frozen(nn.PReLU(4)),
    "relu6": lambda x: F.relu6(4 * x),
    "hardsigmoid": F.hardsigmoid,
    "hardtanh": F.hardtanh,
    "abs": torch.abs,
    "clamp": lambda x: x.clamp(-0.5, 0.5),
    "maximum": lambda x: torch.maximum(x, CONSTANT) + torch.minimum(x, -x),
    "amax": lambda x: x.amax(1) + x.max(1).values - x.amin(1),
    "sort": lambda x: x.sort(1).values + x.topk(4, 1).values,
    "max-pool": lambda x: F.max_pool2d(x, 2),
    "adaptive-max-pool": lambda x: F.adaptive_max_pool2d(x, 2),
    "average-pool": lambda x: F.avg_pool2d(x, 2),
    "adaptive-average-pool": lambda x: F.adaptive_avg_pool2d(x, 1) + F.adaptive_avg_pool2d(x, 2).mean((2, 3), True),
    "pixel-shuffle": lambda x: F.pixel_unshuffle(F.pixel_shuffle(x, 2), 2),
    "nearest": lambda x: F.interpolate(x, scale_factor=2),
    "bilinear": lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
    "bicubic": lambda x: F.interpolate(x, scale_factor=2, mode="bicubic"),
    "unfold": lambda x: F.fold(F.unfold(x, 2), (4, 4), 2),
    "cumsum": lambda x: x.cumsum(1),
    "blend": lambda x: torch.lerp(x, 2 * x, 0.3),
    "grid-sample-image": lambda x: F.grid_sample(x, GRID, align_corners=False),
}
CURVED = {
    "gelu": (F.gelu, "Gelu"),
    "silu": (F.silu, "Silu"),
    "sigmoid": (torch.sigmoid, "Sigmoid"),
    "tanh": (torch.tanh, "Tanh"),
    "exp": (torch.exp, "Exp"),
    "elu": (F.elu, "Elu"),
    "softplus": (F.softplus, "Softplus"),
    "hardswish": (F.hardswish, "Hardswish"),
    "square": (lambda x: x**2, "Pow"),
    "product": (lambda x: x * x.mean(1, keepdim=True), "Mul"),
    "product-with-itself": (lambda x: x * x, "Mul"),
    "matmul": (lambda x: x @ x.mT, "Bmm"),
    "quotient": (lambda x: CONSTANT / (2 + x.abs()), "Div"),
    "softmax": (lambda x: x.softmax(1), "Softmax"),
    "log-softmax": (lambda x: x.log_softmax(1), "LogSoftmax"),
    "layer-norm": (_frozen(nn.LayerNorm(4)), "NativeLayerNorm"),
    "group-norm": (_frozen(nn.GroupNorm(2, 4)), "NativeGroupNorm"),
    "batch-norm-on-the-batch": (_frozen(nn.BatchNorm2d(4, track_running_stats=False)), "NativeBatchNorm"),
    "instance-norm": (_frozen(nn.InstanceNorm2d(4)), "NativeBatchNorm"),
    "norm": (lambda x: F.normalize(x, dim=1), "LinalgVectorNorm"),
    "variance": (lambda x: x.var(1), "Var"),
    "blend-weight": (lambda x: torch.lerp(x, CONSTANT, x), "Lerp"),
    "grid-sample-places": (
        lambda x: F.grid_sample(CONSTANT, x.tanh()[:, :, :, :2], align_corners=False),
        "GridSampler2D",
    ),
}


def _second_difference(function: Any, x: Tensor) -> float:
    """Return ‖f(x + h) − 2 f(x) + f(x − h)‖/|h|², zero for what is linear near x."""
    step = 1e-4 * noise(*x.shape, seed=9, dtype=torch.float64)
    values = [function(x + k * step) for k in (1, 0, -1)]
    return float((values[0] - 2 * values[1] + values[2]).norm() / 1e-8)


def _curved(function: Any) -> dict[str, str]:
    x = noise(2, 4, 4, 4, seed=7, dtype=torch.float64).requires_grad_()
    activation = x * 1
    return find_curved_downstream([function(activation)], {"x": activation.grad_fn})


@pytest.mark.parametrize("name", FLAT)
def test_piecewise_linear(name):
    assert _curved(FLAT[name]) == {}
    assert _second_difference(FLAT[name], noise(2, 4, 4, 4, seed=7, dtype=torch.float64)) < 1e-4


@pytest.mark.parametrize("name", CURVED)
def test_curved(name):
    function, operation = CURVED[name]
    found = _curved(function)
    assert set(found) == {"x"}
    if name not in ("grid-sample-places", "norm"):  # two curved operations: either may be named
        assert found["x"] == operation
    assert _second_difference(function, noise(2, 4, 4, 4, seed=7, dtype=torch.float64)) > 1e-2


def test_places_to_sample_at_are_curved_by_themselves():
    assert set(_curved(lambda x: F.grid_sample(CONSTANT, 0.3 * x[..., :2], align_corners=False)).values()) == {
        "GridSampler2D"
    }


def _write_into_view(x: Tensor) -> Tensor:
    y = x * 2
    y[:, :2].sigmoid_()
    return y


def test_what_is_written_into_a_view_is_not_known_and_counts_as_curved():
    assert _curved(_write_into_view) == {"x": "CopySlices"}
    assert _curved(TimesTwo.apply) == {"x": "TimesTwo"}


@pytest.mark.parametrize("backend", [SDPBackend.MATH, SDPBackend.FLASH_ATTENTION], ids=["math", "flash"])
def test_attention_is_curved(backend):
    with sdpa_kernel(backend):
        assert "x" in _curved(lambda x: F.scaled_dot_product_attention(x, x, x))


def _network(model: nn.Module, data: Tensor) -> Network:
    with freeze(model):
        return Network(model, Batch((data,)))


class GatedBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.gate, self.out = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inner(x)
        return F.relu(self.out(x * torch.sigmoid(self.gate(x))))


def test_only_what_lies_before_something_curved_is_curved():
    curved = _network(GatedBlock(), noise(1, 4)).curved
    assert {"x", "inner", "gate"} <= set(curved)
    assert not {"mul", "out", "relu"} & set(curved)
    assert set(curved.values()) <= {"Sigmoid", "Mul"}


def test_a_branch_beside_something_curved_is_not():
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.flat, self.bent = nn.Linear(4, 2), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.flat(x) + F.gelu(self.bent(x))

    assert _network(Branches(), noise(1, 4)).curved == {"x": "Gelu", "bent": "Gelu"}


def test_several_outputs():
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk, self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 2), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            x = self.trunk(x)
            return self.one(x), torch.tanh(self.two(x))

    assert _network(Two(), noise(1, 4)).curved == {"x": "Tanh", "trunk": "Tanh", "two": "Tanh"}


def test_a_convolutional_net_without_curvature_has_none():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Flatten(),
        nn.Dropout(0.1), nn.Linear(16, 5),
    )  # fmt: skip
    assert _network(model, noise(1, 3, 6, 6)).curved == {}
    model.train()
    assert _network(model, noise(1, 3, 6, 6)).curved == {}


def test_the_same_without_torch_fx():
    class Choosing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.act, self.two = nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            if x.sum() > 1e6:
                raise ValueError
            return self.two(self.act(self.one(x)))

    network = _network(Choosing(), noise(1, 4))
    assert not network.traced
    assert network.curved == {"x": "Gelu", "one": "Gelu"}
