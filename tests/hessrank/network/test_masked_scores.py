"""Masked scores are no part of a range, have no rounding error, and get neither bits nor a quantizer."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hessrank import Policy, make_policy, prepare, rank, verify
from hessrank.analysis.result.ranking import Ranking
from hessrank.data.batch import Batch
from hessrank.network.frozen_model import freeze
from hessrank.network.masked_scores import masking_fills, score_layers
from hessrank.network.network import Network

CAUSAL = torch.ones(6, 6).triu(1).bool()
LEAST = torch.finfo(torch.float32).min


def of(value: float) -> Tensor:
    return torch.zeros(6, 6).masked_fill(CAUSAL, value)


MASKS: dict[str, Callable[[Tensor], Tensor]] = {
    "where": lambda a: torch.where(CAUSAL, float("-inf"), a),
    "masked_fill with -inf": lambda a: a.masked_fill(CAUSAL, float("-inf")),
    "masked_fill with -1e9": lambda a: a.masked_fill(CAUSAL, -1e9),
    "in place": lambda a: a.clone().masked_fill_(CAUSAL, -1e9),
    "add -inf": lambda a: a + of(float("-inf")),
    "add the least number": lambda a: a + of(LEAST),
    "add -10000": lambda a: a + of(-10000.0),
    "add -10000 twice": lambda a: a + of(-10000.0) + of(-10000.0),
    "add -100, as Swin does": lambda a: a + of(-100.0),
    "subtract 10000": lambda a: a - of(10000.0),
    "add, then a floor": lambda a: torch.max(a + of(float("-inf")), torch.tensor(LEAST)),
    "maximum": lambda a: torch.maximum(torch.where(CAUSAL, float("-inf"), a), torch.tensor(-1e4)),
    "multiply, then subtract": lambda a: a * (~CAUSAL).float() - 1e4 * CAUSAL.float(),
    "scaled and reshaped behind it": lambda a: ((a + of(-80000.0)) / 8).unsqueeze(1).flatten(0, 1) * 8,
}


class Attention(nn.Module):
    """Causal attention of one head, masked somehow."""

    def __init__(self, mask: Callable[[Tensor], Tensor] = lambda a: a) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(8, 8) for _ in range(4))
        self.mask = mask

    def forward(self, x: Tensor) -> Tensor:
        a = self.q(x) @ self.k(x).transpose(1, 2) / 8**0.5
        return self.o(self.mask(a).softmax(-1) @ self.v(x))


def uniform(bits: int = 8) -> Policy:
    return Policy.of({"extra_qconfig_dict": {"w_qscheme": {"bit": bits}, "a_qscheme": {"bit": bits}}})


def made(mask: Callable[[Tensor], Tensor]) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return Attention(mask).eval(), torch.randn(6, 6, 8)


def masked_of(ranking: Ranking) -> set[str]:
    return {name for name, facts in ranking.info["graph"]["layers"].items() if "masked" in facts}


by_mask = pytest.mark.parametrize("name", MASKS)


@by_mask
def test_no_range_holds_a_mask_and_scores_before_it_are_quantized(name: str) -> None:
    model, x = made(MASKS[name])
    ranking = rank(model, x, loss="self-mse", bits=(4, 8), max_probes=2)
    graph, masked = ranking.info["graph"]["layers"], masked_of(ranking)
    scores = {layer: facts["range"] for layer, facts in graph.items() if layer not in ("x", "q", "k", "v", "o")}
    assert all(low > -50 for low, _ in scores.values()), scores
    assert masked
    assert not masked & {"matmul", "truediv", "softmax"}
    (note,) = (note for note in ranking.warnings if note.startswith("masked scores in "))
    assert masked <= set(note.partition(":")[0].replace(",", "").split())


@by_mask
def test_the_quantized_network_is_near_and_trains(name: str) -> None:
    model, x = made(MASKS[name])
    prepared = prepare(model, uniform(), x).eval()
    with torch.no_grad():
        error = (prepared(x) - model(x)).norm() / model(x).norm()
    assert error < 0.05
    prepared.train()(x).square().mean().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in prepared.parameters())


@by_mask
def test_a_policy_spends_no_bits_on_it(name: str) -> None:
    model, x = made(MASKS[name])
    ranking = rank(model, x, loss="self-mse", max_probes=2)
    masked = masked_of(ranking)
    policy = make_policy(ranking, "budget", budget_mean_bits=6)
    assert not masked & set(policy.layers)
    unquantized = prepare(model, policy, x).unquantized
    assert all("masked scores" in unquantized[f"activation of {layer}"] for layer in masked)


def test_a_prediction_leaves_the_mask_alone_as_the_measurement_does() -> None:
    model, x = made(MASKS["add -10000"])
    ranking = rank(model, x, loss="self-mse", bits=(4, 8), increase_probes=400)
    found = verify(model, x, ranking, layers=["add"], weights=False).to_frame()
    assert found["measured"].gt(0).all()
    assert found["ratio"].between(0.7, 1.4).all()


def test_a_mask_that_only_other_samples_show() -> None:
    """The first sample has no padding; the mask of the others is found all the same."""

    class Padded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Attention()

        def forward(self, x: Tensor, keep: Tensor) -> Tensor:
            self.inner.mask = lambda a: a + (1 - keep)[:, None] * -1e4
            return self.inner(x)

    torch.manual_seed(0)
    keep = torch.ones(6, 6)
    keep[1:, 4:] = 0
    model, x = Padded().eval(), torch.randn(6, 6, 8)
    assert {"add", "mul"} <= masked_of(rank(model, (x, keep), loss="self-mse", bits=(8,), max_probes=2))
    prepared = prepare(model, uniform(), (x, keep)).eval()
    assert "activation of add" in prepared.unquantized
    with torch.no_grad():
        assert (prepared(x, keep) - model(x, keep)).norm() < 0.05 * model(x, keep).norm()


def test_a_fill_that_no_sample_shows_is_known_from_the_code() -> None:
    class Guarded(Attention):
        def forward(self, x: Tensor) -> Tensor:
            a = self.q(x) @ self.k(x).transpose(1, 2)
            return a.masked_fill(x.sum(-1, keepdim=True) > 1e6, float("-inf")).masked_fill(a > 99, 0.0).softmax(-1)

    torch.manual_seed(0)
    model, x = Guarded().eval(), torch.randn(2, 6, 8)
    with freeze(model):
        assert masking_fills(Network(model, Batch((x[:1],)))) == {"masked_fill"}
    assert masked_of(rank(model, x, bits=(8,), max_probes=2)) == {"masked_fill"}


def test_the_mask_inside_of_torchs_own_attention() -> None:
    class Fused(Attention):
        def forward(self, x: Tensor) -> Tensor:
            q, k, v = self.q(x), self.k(x), self.v(x)
            return self.o(F.scaled_dot_product_attention(q, k, v, attn_mask=of(float("-inf"))))

    torch.manual_seed(0)
    model, x = Fused().eval(), torch.randn(6, 6, 8)
    assert masked_of(rank(model, x, loss="self-mse", bits=(8,), max_probes=2)) == set()
    with torch.no_grad():
        assert (prepare(model, uniform(), x).eval()(x) - model(x)).norm() < 0.05 * model(x).norm()


class TestWhatIsNoMask:
    """Large negative values that a network computes with, and a softmax that is very sure."""

    def test_a_sure_softmax(self) -> None:
        torch.manual_seed(0)
        model, x = nn.Sequential(nn.Linear(8, 12), nn.Softmax(-1)).eval(), torch.randn(4, 8)
        with torch.no_grad():
            model[0].weight[3].mul_(400)
        ranking = rank(model, x, loss="self-mse", bits=(8,), max_probes=2)
        assert masked_of(ranking) == set()

    def test_scores_that_a_head_shifts(self) -> None:
        model, x = made(lambda a: a + torch.linspace(-60, 60, 6))
        assert masked_of(rank(model, x, loss="self-mse", bits=(8,), max_probes=2)) == set()

    def test_an_outlier_behind_a_convolution(self) -> None:
        torch.manual_seed(0)
        model, x = nn.Sequential(nn.Conv1d(1, 2, 3), nn.ReLU(), nn.Conv1d(2, 1, 3)).eval(), torch.randn(4, 1, 9)
        x[:, :, 0] = -1e5
        assert masked_of(rank(model, x, bits=(8,), max_probes=2)) == set()

    def test_only_what_leads_to_a_softmax_and_nowhere_else_is_a_score(self) -> None:
        model, x = made(MASKS["add -10000"])
        with freeze(model):
            assert score_layers(Network(model, Batch((x[:1],)))) == {"softmax": ("matmul", "truediv", "add")}
