"""Padding does not count: a padded sample is ranked as it is without its padding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.transformer_networks import MODELS, bert, gpt2, llama, token_numbers, tokens
from torch import Tensor, nn

from hessrank.analysis.losses import curvature_times, make_loss
from hessrank.analysis.rank import rank
from hessrank.analysis.result.ranking import Ranking
from hessrank.analysis.verify.verify import verify
from hessrank.data.batch import Batch
from hessrank.network.frozen_model import freeze
from hessrank.network.layer_facts import SampleAxis
from hessrank.network.network import Network
from hessrank.network.outputs import detach
from hessrank.network.padding import Padded, find_positions, real_elements, real_positions

COLUMNS = ["trace", "mean_trace", "numel", "weight_trace", "act_increase_b4", "act_increase_b8", "act_increase_b12"]
PRECISION = {"bert": 1e-7, "bert_model": 1e-7, "gpt2": 1e-7, "llama": 1e-4}  # Llama's norm is in float32


def padded(data: dict[str, Tensor], by: int, *, left: bool = False) -> dict[str, Tensor]:
    """Return tokens with ``by`` more positions of another token, masked; labels there are those of real tokens."""
    sides = (by, 0) if left else (0, by)
    filling = {"input_ids": 7, "attention_mask": 0, "labels": 3}
    return {name: F.pad(value, sides, value=filling[name]) for name, value in data.items()}


def same(one: Ranking, other: Ranking, layers: set[str], rel: float) -> None:
    """Compare two rankings.

    Where activations agree to float32 only, one of them may lie on the other side of the edge between two integers.
    Its error is then a whole step away, which changes eᵀHe by 6/n if H is like the identity (2 · (½)² against n/12,
    in squared steps). Two such flips are allowed for.
    """
    for layer in sorted(layers):
        for column in COLUMNS:
            flips = 12 / other[layer]["numel"] if column.startswith("act_increase") and rel > 1e-6 else 0.0
            expected = pytest.approx(other[layer][column], rel=rel + flips, abs=1e-13, nan_ok=True)
            assert one[layer][column] == expected, (layer, column)


def ranked(model: nn.Module, data: Any, **options: Any) -> Ranking:
    return rank(model, data, **{"estimator": "exact", "bits": (4, 8, 12), **options})


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", PRECISION)
def test_a_padded_sample_is_ranked_as_without_padding(name: str, attention: str) -> None:
    """Traces, increases from errors and from traces, numbers of elements; attention scores in both dimensions."""
    make, data = MODELS[name]
    plain = ranked(make(attention), data(1, 5))
    got = ranked(make(attention), padded(data(1, 5), 3))
    only_padded = set(got) - set(plain)
    assert set(plain) <= set(got)
    assert all(layer.endswith(".add") for layer in only_padded)  # the mask, where nothing was masked before
    same(plain, got, set(plain), PRECISION[name])
    ranges, expected = (r.info["graph"]["layers"] for r in (got, plain))
    for layer in plain:
        assert ranges[layer]["range"] == pytest.approx(expected[layer]["range"], rel=1e-5, abs=1e-9), layer
    assert any("3 of 8 positions" in sentence for sentence in got.warnings)
    assert not any("padding" in sentence for sentence in plain.warnings)


@pytest.mark.parametrize("loss", ["self-mse", "self-kl", "cross-entropy"])
def test_padding_and_every_loss(loss: str) -> None:
    """Labels at padded positions do not count either, whether they are −100 or not."""
    data = tokens(1, 5) | {"labels": token_numbers(1, 5).roll(-1, 1)}
    plain, got = (ranked(gpt2(), d, loss=loss) for d in (data, padded(data, 2)))
    same(plain, got, set(plain), 1e-7)


def test_padding_on_the_left() -> None:
    """The position numbers are then given."""
    data = tokens(1, 5) | {"position_ids": torch.arange(5)[None]}
    shifted = padded(tokens(1, 5), 2, left=True) | {"position_ids": torch.tensor([[0, 0, 0, 1, 2, 3, 4]])}
    for make, precision in ((gpt2, 1e-7), (llama, 1e-4)):
        plain, got = ranked(make(), data), ranked(make(), shifted)
        same(plain, got, set(plain), precision)


def test_samples_of_several_lengths() -> None:
    """The mean over samples of what each has without padding, whatever the batch size."""
    long, short = tokens(1, 6), {name: value[:, :4] for name, value in tokens(1, 6).items()}
    both = {name: torch.cat([long[name], padded(short, 2)[name]]) for name in long}
    one, other = ranked(gpt2(), long), ranked(gpt2(), short)
    got, in_batches = ranked(gpt2(), both), ranked(gpt2(), both, batch_size=2)
    for layer in one:
        assert got[layer].trace == pytest.approx((one[layer].trace + other[layer].trace) / 2, rel=1e-7)
        assert got[layer].numel == round((one[layer].numel + other[layer].numel) / 2)
    same(got, in_batches, set(one), 1e-6)


def test_auto_with_a_task_loss_and_padding() -> None:
    labels = {"labels": torch.tensor([0, 2])}
    options = {"loss": "cross-entropy", "estimator": "auto", "max_probes": 8, "increase_probes": 0}
    one, other = (ranked(bert(), d | labels, **options) for d in (tokens(2, 4), padded(tokens(2, 4), 2)))
    same(one, other, {"classifier", "bert.pooler.activation"}, 1e-7)


def test_verification_with_padding() -> None:
    options = {"bits": 8, "layers": ["transformer.h.0.add", "lm_head"], "weights": False}
    found, expected = (
        verify(gpt2(), data, ranked(gpt2(), data), **options).to_frame()
        for data in (padded(tokens(1, 4), 3), tokens(1, 4))
    )
    np.testing.assert_allclose(found["measured"], expected["measured"], rtol=1e-6)


@pytest.mark.parametrize("estimator", ["gauss-newton", "hutchinson", "curvature-propagation", "pyhessian"])
def test_no_estimator_counts_the_attention_paid_to_padding(estimator: str) -> None:
    """It is 0, and what it is multiplied with is not: the loss has a curvature there."""
    layer, loss = "bert.encoder.layer.0.attention.self.softmax", "self-mse"
    options = {"max_probes": 64, "tolerance": 0.01, "increase_probes": 0, "weights": False}
    exact = ranked(bert("eager"), tokens(1, 3), loss=loss)[layer].trace
    everything = ranked(bert("eager"), tokens(1, 5), loss=loss)[layer].trace
    found = ranked(bert("eager"), padded(tokens(1, 3), 2), loss=loss, estimator=estimator, **options)[layer]
    assert abs(found["trace"] - exact) < 4 * found["sem"] < abs(everything - exact)


def test_a_network_of_one_length_only() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.places = nn.Embedding(23, 4), nn.Parameter(torch.randn(1, 4, 4))
            self.head = nn.Linear(4, 3)

        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
            x = self.words(input_ids) + self.places
            return self.head(x * attention_mask[..., None])

    torch.manual_seed(0)
    ranking = rank(Fixed(), padded(tokens(1, 3), 1), bits=(8,))
    assert any("takes no other length: padding counts in ranges" in sentence for sentence in ranking.warnings)
    assert ranking["head"].numel == 4 * 3


# The parts


REAL = torch.tensor([[1, 1, 0], [1, 0, 0]], dtype=torch.bool)
SEQUENCE = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
OTHER = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
LABELS = torch.tensor([[0, 1, 2], [3, 0, 1]])


@pytest.mark.parametrize("name", ["self", "self-kl", "self-mse", "mse", "charbonnier"])
def test_the_loss_of_a_padded_sample(name: str) -> None:
    loss = make_loss(name)
    got = loss.per_sample(SEQUENCE, Padded(OTHER, REAL))
    short = [loss.per_sample(SEQUENCE[i : i + 1, :n], OTHER[i : i + 1, :n]) for i, n in enumerate((2, 1))]
    torch.testing.assert_close(got, torch.cat(short))


def test_cross_entropy_of_a_padded_sample() -> None:
    got = make_loss("cross-entropy").per_sample(SEQUENCE, Padded(LABELS, REAL))
    torch.testing.assert_close(got[0], F.cross_entropy(SEQUENCE[0, :2], LABELS[0, :2]))
    torch.testing.assert_close(got[1], F.cross_entropy(SEQUENCE[1, :1], LABELS[1, :1]))


@pytest.mark.parametrize("name", ["self-kl", "self-mse", "mse", "charbonnier", "cross-entropy"])
def test_the_factor_of_a_padded_sample_is_a_root_of_its_curvature(name: str) -> None:
    """The sum over the unit vectors w of ⟨Sw, v⟩² is ‖Sᵀv‖² = vᵀBv."""
    loss = make_loss(name)
    values = LABELS if name == "cross-entropy" else SEQUENCE if name.startswith("self") else OTHER
    target, v = Padded(values, REAL), torch.randn(SEQUENCE.shape, generator=torch.Generator().manual_seed(2)).double()
    total = 0.0
    for index in range(SEQUENCE[0].numel()):
        w = torch.zeros_like(SEQUENCE).flatten(1)
        w[:, index] = 1
        (s,) = loss.factor(detach(SEQUENCE), target, [w.reshape(SEQUENCE.shape)]) or []
        total += float((s * v).flatten(1).sum(1).square().sum())
    (product,) = curvature_times(loss, SEQUENCE, target, [v])
    assert total == pytest.approx(float((product * v).sum()), rel=1e-9)
    assert not product[0, 2].any()
    assert not product[1, 1:].any()


def test_where_the_mask_is_found() -> None:
    mask = torch.tensor([[1, 1, 0]])
    found = real_positions(Batch((), {"attention_mask": mask}))
    assert found is not None
    assert found.tolist() == [[True, True, False]]
    assert real_positions(Batch(({"attention_mask": mask},))) is not None
    assert real_positions(Batch((mask,))) is None
    assert real_positions(Batch((), {"attention_mask": torch.ones(1, 3)})) is None
    assert real_positions(Batch((), {"attention_mask": mask[:, None]})) is None
    assert real_positions(Batch((), {})) is None


@pytest.mark.parametrize(
    ("shape", "axis", "expected"),
    [
        pytest.param((2, 3, 4), SampleAxis(positions=(1,)), 3 * 4, id="B×T×D"),
        pytest.param((2, 5, 3, 3), SampleAxis(positions=(2, 3)), 5 * (4 + 1), id="B×H×T×T"),
        pytest.param((10, 3, 4), SampleAxis(0, 5, (1,)), 5 * 4 * 3, id="B·H×T×D"),
        pytest.param((3, 2, 4), SampleAxis(1, 1, (0,)), 3 * 4, id="T×B×D"),
        pytest.param((6, 4), SampleAxis(0, 3, (0,)), 3 * 4, id="B·T×D"),
        pytest.param((2, 4), SampleAxis(), None, id="B×D"),
    ],
)
def test_which_elements_are_real(shape: tuple[int, ...], axis: SampleAxis, expected: int | None) -> None:
    found = real_elements(torch.zeros(shape), axis, REAL)
    assert (None if found is None else int(found.expand(shape).sum())) == expected


def test_where_positions_lie() -> None:
    model = bert("eager")
    with freeze(model):
        one = Batch((), padded(tokens(1, 4), 2))
        found = find_positions(Network(model, one), one, 6)
    stem = "bert.encoder.layer.0."
    assert found["bert.embeddings.word_embeddings"] == (1,)
    assert found[stem + "attention.self.softmax"] == (2, 3)
    assert found[stem + "attention.self.matmul_1"] == (2,)
    assert "bert.pooler.dense" not in found
    assert "classifier" not in found
