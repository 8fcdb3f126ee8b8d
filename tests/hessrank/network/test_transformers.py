"""Transformers of Hugging Face, made from configurations: names of layers, exact traces, outputs, labels."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers.transformer_networks import (
    MODELS,
    Perturbed,
    bert,
    bert_model,
    exact_trace,
    gpt2,
    llama,
    of_kl,
    token_numbers,
    tokens,
    vit,
)
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from hessrank.analysis.rank import rank
from hessrank.analysis.result.ranking import Ranking
from hessrank.data.batch import make_batch
from hessrank.data.samples import as_samples
from hessrank.errors import DataError
from hessrank.network.frozen_model import freeze
from hessrank.network.layer_sizes import measure_sizes
from hessrank.network.layer_survey import find_sample_axes
from hessrank.network.network import Network

SDPA, EAGER = "scaled_dot_product_attention", "matmul mul softmax matmul_1"
ATTENDED = "bert.encoder.layer.0.attention.self.scaled_dot_product_attention"


def _names(*parts: str) -> list[str]:
    """Return names of ``prefix: name name …`` lines, each with its prefix."""
    found = []
    for part in parts:
        prefix, _, words = part.partition(": ")
        found += [f"{prefix}.{word}" for word in words.split()] if words else prefix.split()
    return found


BERT = _names(
    "bert.embeddings: word_embeddings add add_1 LayerNorm",
    "bert.encoder.layer.0.attention.self: query key value " + SDPA,
    "bert.encoder.layer.0.attention.output: dense add LayerNorm",
    "bert.encoder.layer.0.intermediate: dense intermediate_act_fn",
    "bert.encoder.layer.0.output: dense add LayerNorm",
    "bert.pooler: dense activation",
    "classifier",
)
VIT = _names(
    "pixel_values vit.embeddings.patch_embeddings.projection vit.embeddings.cat vit.embeddings.add",
    "vit.layers.0: layernorm_before attention.q_proj attention.k_proj attention.v_proj attention." + SDPA,
    "vit.layers.0: attention.o_proj add layernorm_after mlp.fc1 mlp.activation_fn mlp.fc2 add_1",
    "vit.layernorm classifier",
)
GPT2 = _names(
    "transformer: wte add",
    "transformer.h.0: ln_1 attn.c_attn attn.scaled_dot_product_attention attn.c_proj add",
    "transformer.h.0: ln_2 mlp.c_fc mlp.act mlp.c_proj add_1",
    "transformer.ln_f lm_head",
)
LLAMA = _names(
    "model.embed_tokens",
    "model.layers.0: input_layernorm self_attn.q_proj self_attn.k_proj self_attn.v_proj",
    "model.layers.0.self_attn: mul neg cat mul_1 add mul_2 neg_1 cat_1 mul_3 add_1 " + SDPA + " o_proj",
    "model.layers.0: add post_attention_layernorm mlp.gate_proj mlp.act_fn mlp.up_proj mlp.mul mlp.down_proj add_1",
    "model.norm lm_head",
)


def _eager(names: list[str], words: str) -> list[str]:
    """Return names with an attention's matrix products in the place of one function."""
    found = []
    for name in names:
        stem, _, word = name.rpartition(".")
        found += [f"{stem}.{w}" for w in words.split()] if word == SDPA else [name]
    return found


EXPECTED = {
    ("bert", "sdpa"): BERT,
    ("bert", "eager"): _eager(BERT, EAGER),
    ("bert_model", "sdpa"): [name.removeprefix("bert.") for name in BERT[:-1]],
    ("vit", "sdpa"): VIT,
    ("vit", "eager"): _eager(VIT, EAGER),
    ("gpt2", "sdpa"): GPT2,
    ("gpt2", "eager"): _eager(GPT2, "matmul mul add softmax matmul_1"),  # the causal mask is added
    ("llama", "sdpa"): LLAMA,
    ("llama", "eager"): _eager(LLAMA, "matmul mul_4 add_2 softmax matmul_1"),
}


def network_of(model: nn.Module, data: Any) -> Network:
    return Network(model, make_batch(as_samples(data), [0], model, needs_target=False))


@pytest.mark.parametrize(("name", "attention"), EXPECTED)
def test_names(name: str, attention: str) -> None:
    make, data = MODELS[name]
    model = make(attention)
    with freeze(model):
        network = network_of(model, data())
        assert [layer.name for layer in network.layers] == EXPECTED[name, attention]
        kinds = {layer.name: layer.kind for layer in network.layers}
    assert all(kinds[n] == SDPA for n in kinds if n.endswith(SDPA))
    assert all(kinds[n] == "add" for n in kinds if n.rpartition(".")[2] in ("add", "add_1"))


@pytest.mark.parametrize("name", MODELS)
def test_samples_stay_apart_in_a_batch(name: str) -> None:
    """Copies of a sample in a batch, and with them pilots, need that."""
    make, data = MODELS[name]
    model, samples = make(), as_samples(data())
    with freeze(model):
        one, pair = (make_batch(samples, indices, model, needs_target=False) for indices in ([0], [0, 1]))
        network = Network(model, one)
        assert find_sample_axes(network, one, pair, measure_sizes(network, one)) == ""


@pytest.mark.parametrize("name", ["bert", "vit", "gpt2", "llama"])
def test_both_ways_to_attend_give_the_same_traces(name: str) -> None:
    make, data = MODELS[name]
    one, other = (rank(make(a), data(), estimator="exact", bits=(8,), increase_probes=0) for a in ("sdpa", "eager"))
    common = set(one) & set(other)
    assert common == set(EXPECTED[name, "sdpa"]) & set(EXPECTED[name, "eager"])
    for layer in common:
        assert one[layer].trace == pytest.approx(other[layer].trace, rel=1e-5), layer  # some softmax is in float32
    attended = [layer for layer in one if layer.endswith(SDPA)]
    for layer in attended:
        product = layer.removesuffix(SDPA) + "matmul_1"
        assert one[layer].trace == pytest.approx(other[product].trace, rel=1e-5)


WHERE: dict[str, dict[str, str | tuple[str, int]]] = {
    "bert": {
        "bert.embeddings.add_1": ("add", 1),
        "bert.encoder.layer.0.attention.self.scaled_dot_product_attention": (SDPA, 0),
        "bert.encoder.layer.0.attention.output.add": ("add", 2),
        "bert.encoder.layer.0.output.add": ("add", 3),
        "bert.encoder.layer.0.output.dense": "bert.encoder.layer.0.output.dense",
    },
    "gpt2": {
        "transformer.add": ("add", 0),
        "transformer.h.0.attn.scaled_dot_product_attention": (SDPA, 0),
        "transformer.h.0.attn.c_attn": "transformer.h.0.attn.c_attn",
        "transformer.h.0.add": ("add", 1),
    },
    "llama": {
        "model.layers.0.self_attn.scaled_dot_product_attention": (SDPA, 0),
        "model.layers.0.self_attn.neg": ("neg", 0),
        "model.layers.0.mlp.down_proj": "model.layers.0.mlp.down_proj",
    },
}

PRECISION = {"bert": 1e-9, "gpt2": 1e-9, "llama": 1e-6}  # Llama's norm and its rotation are in float32


@pytest.fixture(scope="module")
def exact_rankings() -> dict[str, Ranking]:
    return {
        name: rank(MODELS[name][0](), MODELS[name][1](), estimator="exact", bits=(8,), increase_probes=0)
        for name in WHERE
    }


@pytest.mark.parametrize(("name", "layer"), [(name, layer) for name in WHERE for layer in WHERE[name]])
def test_exact_traces_are_those_of_torch_func(exact_rankings: dict[str, Ranking], name: str, layer: str) -> None:
    make, data = MODELS[name]
    model = make()
    samples = [{field: value[i : i + 1] for field, value in data().items()} for i in range(2)]
    traces = [exact_trace(model, one, lambda out: out.logits, of_kl, WHERE[name][layer]) for one in samples]
    assert exact_rankings[name][layer].trace == pytest.approx(sum(traces) / 2, rel=PRECISION[name])


def test_random_probes_agree() -> None:
    exact = rank(bert(), tokens(), estimator="exact", bits=(8,), increase_probes=0)
    options = {"max_probes": 64, "tolerance": 0.01, "bits": (8,), "increase_probes": 0, "weights": False}
    for estimator in ("gauss-newton", "hutchinson"):
        found = rank(bert(), tokens(), estimator=estimator, **options)
        for layer in (ATTENDED, "bert.encoder.layer.0.output.add"):
            values = found[layer], exact[layer]
            noise = found[layer].trace * (2 / (2 * 64)) ** 0.5  # of the probes; exact and found share their samples
            assert abs(values[0].trace - values[1].trace) < 4 * noise, (estimator, layer)


def test_a_task_loss_propagates_curvature_through_functions() -> None:
    """The tape takes a network apart at its functions too."""
    data = tokens(1) | {"labels": torch.tensor([2])}
    options = {"loss": "cross-entropy", "bits": (8,), "increase_probes": 0, "weights": False, "tolerance": 0.001}
    for estimator in ("curvature-propagation", "hutchinson"):
        found = rank(bert(), data, estimator=estimator, max_probes=256, **options)
        for layer in (ATTENDED, "bert.encoder.layer.0.output.add"):
            place = WHERE["bert"][layer]
            assert isinstance(place, tuple)
            exact = _hessian_trace(bert(), data, place)
            assert abs(found[layer].trace - exact) < 4 * found[layer]["sem"], (estimator, layer)
            assert found[layer]["sem"] < abs(found["bert.embeddings.add_1"].trace)
    automatic = rank(bert(), data, max_probes=8, **options)
    assert any("the full Hessian is needed" in row["why"] for row in automatic.info["estimators"])
    assert automatic["classifier"].estimator == "exact"


def _hessian_trace(model: nn.Module, data: dict[str, Tensor], place: tuple[str, int]) -> float:
    """Return the trace of the loss's Hessian at a function call, by torch's double backward."""
    inputs = {field: value for field, value in data.items() if field != "labels"}
    probe = Perturbed(*place, None)
    with sdpa_kernel(SDPBackend.MATH), probe:
        model(**inputs)
    assert probe.value is not None

    def loss(delta: Tensor) -> Tensor:
        with sdpa_kernel(SDPBackend.MATH), Perturbed(*place, delta):
            return F.cross_entropy(model(**inputs).logits, data["labels"])

    hessian = torch.autograd.functional.hessian(loss, torch.zeros_like(probe.value))
    return float(hessian.reshape(probe.value.numel(), -1).trace())


# Outputs and labels


def test_logits_are_logits_of_any_length_and_features_are_not() -> None:
    assert "taken for logits" in rank(gpt2(), tokens(), max_probes=2, bits=(8,)).info["loss_detail"]
    assert "loss_detail" not in rank(bert_model(), tokens(), max_probes=2, bits=(8,)).info
    assert "2×3" not in rank(vit(), MODELS["vit"][1](), max_probes=2, bits=(8,)).info["loss_detail"]


@pytest.mark.parametrize("make", [gpt2, llama])
def test_neither_cache_nor_hidden_states_nor_a_loss_are_an_output(make: Any) -> None:
    plain = rank(make(), tokens(), estimator="exact", bits=(8,), increase_probes=0)
    model = make()
    model.config.use_cache = True
    model.config.output_hidden_states = True
    data = tokens() | {"labels": token_numbers()}
    got = rank(model, data, estimator="exact", bits=(8,), increase_probes=0)
    assert list(got) == list(plain)
    assert got.to_frame()["trace"].tolist() == plain.to_frame()["trace"].tolist()
    assert got.info["graph"]["outputs"] == ["lm_head"]
    assert model.config.use_cache


@pytest.mark.parametrize("make", [gpt2, llama])
def test_cross_entropy_of_a_language_model(make: Any) -> None:
    """Label t belongs to the logits at t; −100 is left out."""
    labels = token_numbers(length=4).roll(-1, 1)
    labels[:, -1] = -100
    model = make()
    ranking = rank(
        model, tokens() | {"labels": labels}, loss="cross-entropy", estimator="exact", bits=(8,), increase_probes=0
    )
    traces = []
    for ids, row in zip(token_numbers(), labels, strict=True):
        logits = model(input_ids=ids[None]).logits[0].detach()
        p = logits[row != -100].softmax(-1)
        traces.append(float((1 - p.square().sum(-1)).mean()))
    assert ranking["lm_head"].trace == pytest.approx(sum(traces) / 2, rel=1e-9)


def test_labels_that_are_the_tokens_themselves_get_a_note() -> None:
    data = tokens() | {"labels": token_numbers()}
    said = rank(gpt2(), data, loss="cross-entropy", estimator="gauss-newton", max_probes=2, bits=(8,)).warnings
    assert any("labels are the input_ids themselves" in sentence for sentence in said)
    shifted = tokens() | {"labels": token_numbers().roll(-1, 1)}
    said = rank(gpt2(), shifted, loss="cross-entropy", estimator="gauss-newton", max_probes=2, bits=(8,)).warnings
    assert not any("themselves" in sentence for sentence in said)


def test_noise_is_no_token() -> None:
    with pytest.raises(DataError, match=r"float64 1×4.*--data tokens\.npz, with an array of integers named input_i"):
        rank(bert(), torch.randn(2, 4))


def test_weights_of_gpt2s_linear_layers_have_traces() -> None:
    """Its Conv1D keeps a weight as inputs × outputs."""
    found = rank(gpt2(), tokens(), estimator="exact", bits=(8,), increase_probes=0)
    model = gpt2()
    total = 0.0
    for ids in token_numbers():
        weight = model.transformer.h[0].mlp.c_proj.weight
        logits = model(input_ids=ids[None], use_cache=False).logits[0]
        b = of_kl(logits.detach())
        rows = [torch.autograd.grad(z, weight, retain_graph=True)[0].flatten() for z in logits.flatten()]
        j = torch.stack(rows)
        total += float(torch.trace(j.T @ b @ j))
    assert found["transformer.h.0.mlp.c_proj"].weight_trace == pytest.approx(total / 2, rel=1e-9)
    assert not any("c_proj" in sentence for sentence in found.warnings)


@pytest.mark.parametrize("name", MODELS)
def test_the_model_is_left_as_it_was(name: str) -> None:
    make, data = MODELS[name]
    model = make()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    config = model.config.to_dict()
    rank(model, data(), max_probes=2, bits=(8,))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert model.config.to_dict() == config
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules() if type(m) is nn.Linear)
