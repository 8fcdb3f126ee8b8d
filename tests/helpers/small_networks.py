"""Small float64 networks, one for each thing that can go wrong with curvature."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel


class Gate(nn.Module):
    """A sigmoid gate: a product of two branches, as channel attention has."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(5, 6)
        self.gate = nn.Linear(6, 6)
        self.out = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.inner(x))
        return self.out(h * torch.sigmoid(self.gate(h)))


class Attention(nn.Module):
    """One head of self-attention over a short sequence, with layer norm and scaled-dot-product attention."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4)
        self.q, self.k, self.v = (nn.Linear(4, 4) for _ in range(3))
        self.out = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        h = x + F.scaled_dot_product_attention(self.q(h), self.k(h), self.v(h))
        return self.out(h.mean(1))


class Reused(nn.Module):
    """One linear layer and one activation, each called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(5, 5)
        self.act = nn.LeakyReLU(0.2)
        self.out = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.act(self.linear(self.act(self.linear(x)))))


class TwoOutputs(nn.Module):
    """Returns an image and a vector, the second through an in-place activation."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(32, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.relu(self.conv(x))
        return h, self.head(h.flatten(1))


@dataclass(frozen=True)
class Case:
    """A network with two samples; ``flat`` if all of it is piecewise linear."""

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    flat: bool
    rtol: float = 1e-9

    def make(self) -> tuple[nn.Module, Tensor, Tensor]:
        """Return the model in float64 and eval mode, two samples and two class labels."""
        torch.manual_seed(sum(map(ord, self.name)))
        model = self.build().double().eval()
        x = torch.randn(2, *self.shape, dtype=torch.float64)
        return model, x, torch.tensor([0, 2])


def _relu() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(inplace=True), nn.Linear(6, 3))


def _leaky() -> nn.Module:
    conv = nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular")
    return nn.Sequential(conv, nn.LeakyReLU(0.2, inplace=True), nn.Flatten(), nn.Linear(48, 3))


def _max_pool() -> nn.Module:
    conv = nn.Conv2d(1, 4, 3, stride=1, padding=1, groups=1)
    return nn.Sequential(
        conv, nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 2, groups=2), nn.Flatten(), nn.Linear(4, 3)
    )


def _gelu() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 7), nn.GELU(), nn.Linear(7, 6), nn.GELU(), nn.Linear(6, 3))


def _batch_norm() -> nn.Module:
    norm = nn.BatchNorm2d(3)
    norm.running_mean = torch.randn(3)
    norm.running_var = torch.rand(3) + 0.5
    return nn.Sequential(nn.Conv2d(1, 3, 3, bias=False), norm, nn.ReLU(), nn.Flatten(), nn.Linear(12, 3))


def _transposed() -> nn.Module:
    up = nn.ConvTranspose2d(2, 3, 2, stride=2)
    return nn.Sequential(nn.Conv2d(1, 2, 1), nn.LeakyReLU(0.1), up, nn.ReLU(), nn.Flatten(), nn.Linear(48, 3))


def _hard_sigmoid() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 6), nn.Hardsigmoid(), nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3))


CASES = [
    Case("relu", _relu, (5,), flat=True),
    Case("leaky-relu", _leaky, (2, 4, 4), flat=True),
    Case("max-pool", _max_pool, (1, 4, 4), flat=True),
    Case("batch-norm", _batch_norm, (1, 4, 4), flat=True),
    Case("transposed-conv", _transposed, (1, 2, 2), flat=True),
    Case("reused-module", Reused, (5,), flat=True),
    Case("gelu", _gelu, (5,), flat=False),
    Case("sigmoid-gate", Gate, (5,), flat=False),
    Case("attention", Attention, (3, 4), flat=False),
    Case("hard-sigmoid", _hard_sigmoid, (5,), flat=False, rtol=2e-7),  # torch's backward has 1/6 in float32
]


@contextmanager
def allow_double_backward() -> Iterator[None]:
    """Let torch.func differentiate hardsigmoid and attention twice."""
    by_definition = mock.patch("torch.nn.functional.hardsigmoid", lambda t, inplace=False: F.relu6(t + 3) / 6)
    with by_definition, sdpa_kernel(SDPBackend.MATH):
        yield


def exact_traces(
    model: nn.Module, x: Tensor, loss: Callable[[Any, Any], Tensor], target: Any
) -> dict[str, list[float]]:
    """Return tr H of every module call for each sample, by torch.func's Hessian.

    The perturbation goes in through plain forward hooks of torch: none of hessrank's own machinery is used.

    Args:
        model: the network.
        x: samples, batch first.
        loss: ``loss(output, target)`` of a batch of one, a scalar.
        target: one entry a sample; None gives each sample the model's own output.
    """
    calls = module_calls(model, x[:1])
    with torch.no_grad():
        own = [model(x[i : i + 1]) for i in range(len(x))]
    result: dict[str, list[float]] = {}
    with allow_double_backward():
        for name, path, repeat in calls:
            result[name] = [
                _one_trace(model, path, repeat, x[i : i + 1], loss, own[i] if target is None else target[i : i + 1])
                for i in range(len(x))
            ]
    return result


def _one_trace(model: nn.Module, path: str, repeat: int, x: Tensor, loss: Any, target: Any) -> float:
    shape: list[torch.Size] = []

    def value(epsilon: Tensor | None) -> Tensor:
        seen = [0]

        def hook(module: nn.Module, args: Any, output: Tensor) -> Tensor | None:
            seen[0] += 1
            if seen[0] - 1 != repeat:
                return None
            shape.append(output.shape)
            return None if epsilon is None else output + epsilon

        handle = model.get_submodule(path).register_forward_hook(hook)
        try:
            return loss(model(x), target)
        finally:
            handle.remove()

    value(None)
    zero = torch.zeros(shape[0], dtype=x.dtype)
    hessian = torch.func.jacrev(torch.func.jacrev(value))(zero)
    return float(hessian.detach().reshape(zero.numel(), zero.numel()).trace())


def module_calls(model: nn.Module, x: Tensor) -> list[tuple[str, str, int]]:
    """Return (layer name, module path, how many calls came before) of every call of a module without children."""
    calls: list[tuple[str, str, int]] = []
    counts: dict[str, int] = {}
    handles = []
    for path, module in model.named_modules():
        if path and next(module.children(), None) is None:

            def hook(module: nn.Module, args: Any, output: Any, path: str = path) -> None:
                repeat = counts.get(path, 0)
                counts[path] = repeat + 1
                calls.append((f"{path}_dup{repeat}" if repeat else path, path, repeat))

            handles.append(module.register_forward_hook(hook))
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    return calls
