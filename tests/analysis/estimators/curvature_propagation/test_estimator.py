"""Curvature propagation against torch.func's exact Hessian: every cut, every rank, every curved network."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.small_networks import CASES, Case, exact_traces
from torch import Tensor, nn

from hessrank.analysis.estimators import CurvaturePropagation, Segment, Work
from hessrank.analysis.estimators.probes import Hadamard, Probes, Rademacher
from hessrank.analysis.losses import make_loss
from hessrank.data.batch import Batch
from hessrank.network.frozen_model import freeze
from hessrank.network.layer_facts import SampleAxis
from hessrank.network.network import Network


class Recorded:
    """Hadamard rows; remembers the longest vector that was asked for."""

    def __init__(self) -> None:
        self.longest = 1

    def draw(self, numel: int, *, sample: int, probe: int, stream: int = 0) -> Tensor:
        self.longest = max(self.longest, numel)
        return Hadamard().draw(numel, sample=sample, probe=probe)


def estimates(
    model: nn.Module, batch: Batch, loss: str, segment: Segment | None, count: int, probes: Probes, copies: int = 1
) -> dict[str, np.ndarray]:
    """Return the mean over ``count`` probes of each layer (and weight) of the segment, by sample."""
    with freeze(model):
        network = Network(model, batch)
        part = network.layers if segment is None else network.layers[segment.first : segment.last + 1]
        names = [layer.name for layer in part]
        axes = dict.fromkeys([layer.name for layer in network.layers], SampleAxis())
        work = Work(network, make_loss(loss), batch, probes, range(count), names, [], axes, copies)
        found = list(CurvaturePropagation(segment)(work))
    assert len(found) == count
    layers = torch.stack([one.layers for one in found]).mean(0).numpy()
    return dict(zip(names, layers, strict=True))


def complete(
    model: nn.Module, batch: Batch, loss: str, segment: Segment | None, copies: int = 32
) -> dict[str, np.ndarray]:
    """Return the mean over a whole Hadamard basis, which has no noise."""
    recorded = Recorded()
    estimates(model, batch, loss, segment, 1, recorded)
    return estimates(model, batch, loss, segment, Hadamard.rows(recorded.longest), Hadamard(), copies)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_whole_basis_of_probes_gives_the_exact_hessian(case: Case) -> None:
    model, x, labels = case.make()
    found = complete(model, Batch((x,), target=labels, samples=(0, 1)), "cross-entropy", None)
    exact = exact_traces(model, x, cross_entropy, labels)
    for name, traces in exact.items():
        np.testing.assert_allclose(found[name], traces, rtol=case.rtol, atol=1e-12, err_msg=name)


class Block(nn.Module):
    """A transformer block with explicit softmax, a gated MLP and a root-mean-square norm."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(4), nn.RMSNorm(4)
        self.q, self.k, self.v, self.proj = (nn.Linear(4, 4) for _ in range(4))
        self.up, self.gate, self.down = nn.Linear(4, 5), nn.Linear(4, 5), nn.Linear(5, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm1(x)
        scores = torch.softmax(self.q(h) @ self.k(h).mT / 2, -1)
        x = x + self.proj(scores @ self.v(h))
        h = self.norm2(x)
        x = x + self.down(F.silu(self.gate(h)) * self.up(h))
        return self.head(x.mean(1))


class Squeezed(nn.Module):
    """Convolutions with group norm, SiLU, and a gate computed from all pixels (squeeze and excitation)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.norm = nn.GroupNorm(2, 4)
        self.squeeze, self.excite = nn.Linear(4, 2), nn.Linear(2, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = F.silu(self.norm(self.conv1(x)))
        gate = torch.sigmoid(self.excite(torch.tanh(self.squeeze(h.mean((2, 3))))))
        h = h + self.conv2(h * gate[:, :, None, None])
        return self.head(h.mean((2, 3)))


class Crossed(nn.Module):
    """Products whose factors have two common ancestors, neither of which all passes through."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.Linear(4, 4) for _ in range(4))
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        a, b = torch.tanh(self.a(x)), torch.sigmoid(self.b(x))
        left, right = self.c(a + b), self.d(a - b)
        return self.head(left * right + torch.exp(-left * left) * a / (2 + b * b))


class Unmixed(nn.Module):
    """A softmax output, which bends between the last layer and the loss; a skip past a product."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(4, 5), nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x) * torch.tanh(self.second(x))
        return torch.log_softmax(self.head(h + self.first(x) ** 3), 1) * 1.5


CURVED = [
    *(case for case in CASES if not case.flat),
    Case("transformer-block", Block, (3, 4), flat=False),
    Case("squeeze-excite", Squeezed, (1, 3, 3), flat=False),
    Case("crossed", Crossed, (4,), flat=False),
    Case("log-softmax", Unmixed, (4,), flat=False),
]


def cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(output, target)


@pytest.mark.parametrize("case", CURVED, ids=lambda case: case.name)
@pytest.mark.parametrize("loss", ["cross-entropy", "mse"])
def test_every_layer_is_exact_from_the_output_on(case: Case, loss: str) -> None:
    model, x, labels = case.make()
    target = labels if loss == "cross-entropy" else torch.randn(2, 3, dtype=torch.float64)
    found = complete(model, Batch((x,), target=target, samples=(0, 1)), loss, None)
    exact = exact_traces(model, x, cross_entropy if loss == "cross-entropy" else F.mse_loss, target)
    for name, traces in exact.items():
        np.testing.assert_allclose(found[name], traces, rtol=max(case.rtol, 1e-8), atol=1e-10, err_msg=name)


@pytest.mark.parametrize("case", CURVED, ids=lambda case: case.name)
@pytest.mark.parametrize("rank", [0, 1, 3])
def test_every_layer_is_exact_from_every_cut(case: Case, rank: int) -> None:
    model, x, labels = case.make()
    batch = Batch((x,), target=labels, samples=(0, 1))
    exact = exact_traces(model, x, cross_entropy, labels)
    count = len(Network(model.requires_grad_(False), batch).layers)
    for last in range(count):
        for first in {0, max(0, last - 3)}:
            found = complete(model, batch, "cross-entropy", Segment(first, last, rank))
            for name in exact.keys() & found.keys():
                np.testing.assert_allclose(
                    found[name], exact[name], rtol=max(case.rtol, 1e-7), atol=1e-9, err_msg=f"{name} from {last}"
                )


@pytest.mark.parametrize("case", CURVED, ids=lambda case: case.name)
def test_copies_change_nothing(case: Case) -> None:
    model, x, labels = case.make()
    batch = Batch((x,), target=labels, samples=(0, 1))
    for segment in (None, Segment(0, 1, 3)):
        one, several = (
            estimates(model, batch, "cross-entropy", segment, 5, Rademacher(0), copies) for copies in (1, 3)
        )
        for name, values in one.items():
            np.testing.assert_allclose(several[name], values, rtol=1e-7, atol=1e-10, err_msg=name)
