"""What holds for every prepared network: those of the field, and the awkward ones of the zoo."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers import field_networks
from helpers.field_networks import FIELD
from helpers.zoo import ZOO, changes, state
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_leaves

from hessrank.analysis.rank import rank
from hessrank.cli.commands.check import describe_coverage
from hessrank.data.batch import Batch
from hessrank.data.samples import as_samples
from hessrank.network.sample_batches import SampleBatches
from hessrank.quant.bit_choice.summary import settle_bits, summarize
from hessrank.quant.layer_graph.graph import Graph
from hessrank.quant.layer_graph.quantizer_placement import IN_KERNEL, find_folded_norms, place_quantizers
from hessrank.quant.policy import Policy, place_policy_quantizers
from hessrank.quant.prepare import QuantizedModel, graph_of, prepare

LEARN_NOTHING = ("no_parameters", "identity")
ALL = [*FIELD, *(name for name, animal in ZOO.items() if animal.traced and not animal.error)]
ALONE = [name for name in ALL if name in FIELD or ZOO[name].apart]  # samples of a batch do not change each other
LEARNING = [name for name in ALL if name not in LEARN_NOTHING]
WITH_BATCH_NORM = ["mobilenet", "densenet", "audio", "residual"]
METHODS = ["fixed", "lsq", "lsq+", "dsq", "pact", "dorefa"]


def policy(bits: int, method: str = "fixed") -> Policy:
    schemes = {"w_qscheme": {"bit": bits, "per_channel": True}, "a_qscheme": {"bit": bits}}
    return Policy.of({"extra_qconfig_dict": schemes | {"w_fakequantize": method, "a_fakequantize": method}})


def build(name: str) -> tuple[nn.Module, Any]:
    return field_networks.build(name) if name in FIELD else (ZOO[name].build(), ZOO[name].data())


@cache
def prepared(name: str, bits: int = 4) -> QuantizedModel:
    model, data = build(name)
    made: QuantizedModel = prepare(model, policy(bits), data)
    return made


def batch_of(name: str) -> Batch:
    """Return all samples, in the precision of the network."""
    model, data = build(name)
    samples = as_samples(data)
    batches = SampleBatches(samples, model, len(samples), needs_target=False)
    return batches.batch(*range(len(samples)))


def run(model: nn.Module, batch: Batch) -> list[Tensor]:
    """Return the tensors that a copy of the model yields, the same random numbers drawn every time."""
    fresh = batch.map(torch.clone)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return [leaf for leaf in tree_leaves(model(*fresh.args, **fresh.kwargs)) if isinstance(leaf, Tensor)]


def assert_close(found: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    """Compare outputs, floating ones relative to the largest value; half precision has a tolerance of its own."""
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        if one.is_floating_point():
            allowed = max(tolerance, 4 * torch.finfo(one.dtype).eps) * max(1.0, float(other.detach().abs().max()))
            torch.testing.assert_close(one.double(), other.double(), rtol=0, atol=allowed)


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize("name", ALL)
def test_off_it_is_the_float_model_with_the_same_dropout_and_batch_statistics(name: str, training: bool) -> None:
    model, ours = build(name)[0].train(training), copy.deepcopy(prepared(name)).train(training)
    ours.set_quantizing(False)
    assert_close(run(ours, batch_of(name)), run(model, batch_of(name)), 2e-5)
    statistics = [value for key, value in model.named_buffers() if "running" in key]
    theirs = [value for key, value in ours.named_buffers() if "running" in key]
    for value in statistics:
        assert any(value.shape == other.shape and torch.allclose(value, other, atol=1e-5) for other in theirs)


@pytest.mark.parametrize("name", ALONE)
def test_sixteen_bits_are_almost_float(name: str) -> None:
    model, data = build(name)
    ours = prepare(model, policy(16), data).eval()
    assert_close(run(ours, batch_of(name)), run(model.eval(), batch_of(name)), 5e-3)


@pytest.mark.parametrize("name", ALL)
def test_no_tensor_has_more_values_than_its_bits_allow(name: str) -> None:
    ours = copy.deepcopy(prepared(name)).eval()
    counts: dict[str, int] = {}
    for path, quantizer in ours.quantizers_by_path():

        def count(module: Any, _: Any, result: Tensor, path: str = path) -> None:
            rows = (
                result.detach().reshape(1, -1) if module.axis is None else result.movedim(module.axis, 0).flatten(1)
            )
            counts[path] = max(counts.get(path, 0), *(len(row.unique()) for row in rows))

        quantizer.register_forward_hook(count)
    run(ours, batch_of(name))
    assert set(counts) == {path for path, _ in ours.quantizers_by_path()}
    assert max(counts.values()) <= 16


@pytest.mark.parametrize("name", LEARNING)
def test_every_parameter_that_learns_in_float_learns_quantized(name: str) -> None:
    model, ours = build(name)[0].train(), copy.deepcopy(prepared(name)).train()
    for one in (model, ours):
        outputs = [out for out in run(one, batch_of(name)) if out.requires_grad]
        torch.stack([(out.double() - 0.9 * out.detach() + 0.1).square().sum() for out in outputs]).sum().backward()
    learns = sum(parameter.grad is not None for parameter in model.parameters())
    gradients = [parameter.grad for parameter in ours.parameters() if parameter.grad is not None]
    assert len(gradients) == learns
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("name", ALL)
def test_copies_and_state_dicts_compute_the_same(name: str) -> None:
    ours, (model, data) = prepared(name), build(name)
    other = prepare(model, policy(4), data, num_samples=1)
    other.load_state_dict(ours.state_dict())
    expected = run(copy.deepcopy(ours).eval(), batch_of(name))
    for found, value in zip(run(other.eval(), batch_of(name)), expected, strict=True):
        assert torch.equal(found, value)


@pytest.mark.parametrize("name", ALL)
def test_every_layer_is_in_the_table_or_on_anothers_grid_or_has_a_reason(name: str) -> None:
    ours, model = prepared(name), build(name)[0]
    graph = graph_of(model, batch_of(name))
    grids = place_policy_quantizers(policy(4), graph).grid_of
    told = {one.layer for one in ours.inserted if one.tensor != "weight"}
    told |= {what.removeprefix("activation of ") for what in ours.unquantized}
    assert [layer for layer in graph.nodes if layer not in told and grids[layer] is None] == []
    floating = [f"{what}: {why}" for what, why in ours.unquantized.items() if not why.startswith(IN_KERNEL)]
    printed = str(ours).splitlines()
    assert printed[2 + len(ours.inserted) :] == [f"{len(floating)} tensors stay in float", *floating, *ours.warnings]


@pytest.mark.parametrize("name", ALL)
def test_ranking_and_preparing_agree_on_what_is_quantized_where(name: str) -> None:
    model, data = build(name)
    ranked = Graph.of_ranking(rank(model, data, max_probes=1, bits=8))
    prepared_from = graph_of(model, batch_of(name))
    assert list(ranked.nodes) == list(prepared_from.nodes)
    assert ranked.outputs == prepared_from.outputs
    assert ranked.stored == prepared_from.stored
    assert place_quantizers(ranked) == place_quantizers(prepared_from)


@pytest.mark.parametrize("name", ALL)
def test_what_a_policy_counts_is_what_is_prepared_and_what_check_lists(name: str) -> None:
    model, data = build(name)
    ranking, ours = rank(model, data, max_probes=1, bits=4), prepared(name)
    problem, bits = settle_bits(policy(4), ranking)
    modules = dict(ours.named_modules())
    weights = {id(module.weight) for _, module in ours.quantized_weights()}
    counted = [problem.graph[layers[0]] for layers in problem.placement.weights.values()]
    assert sum(node.weight_numel for node in counted) == sum(
        {id(m.weight): m.weight.numel() for _, m in ours.quantized_weights()}.values()
    )
    assert len(bits.weights) == len(counted) == len(weights)
    layers = {layer for users in problem.placement.weights.values() for layer in users}
    assert {one.layer for one in ours.inserted if one.tensor == "weight"} <= layers
    assert {one.layer for one in ours.inserted if one.tensor != "weight"} == set(problem.placement.activations)
    assert len({one.quantizer for one in ours.inserted if one.tensor != "weight"}) == len(bits.grids)
    floating = {what: why for what, why in ours.unquantized.items() if not why.startswith(IN_KERNEL)}
    assert summarize(policy(4), ranking).unquantized == floating
    checked = describe_coverage(policy(4), graph_of(model, batch_of(name)))
    assert [line.split() for line in checked[len(checked) - len(floating) :]] == [
        f"{what} {why}".split() for what, why in floating.items()
    ]
    norms = sum(isinstance(module, _BatchNorm) for module in model.modules())
    folded = [m for _, m in ours.quantized_weights() if m.batch_norm is not None]
    left = sum(isinstance(module, _BatchNorm) for module in modules.values()) - len(folded)
    assert len(find_folded_norms(problem.graph, problem.placement)) == len(folded) == norms - left


@pytest.mark.parametrize("name", ALL)
def test_nothing_of_the_users_is_changed(name: str) -> None:
    model, data = build(name)
    before = state(model, data)
    prepare(model, policy(4), data)
    assert changes(before, state(model, data)) == []


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", WITH_BATCH_NORM)
def test_twenty_steps_of_every_method_lower_a_loss(name: str, method: str) -> None:
    model, data = build(name)
    ours = prepare(model.train(), policy(4, method), data)
    target = torch.arange(3) % 2
    optimizer = torch.optim.Adam(ours.parameters(), lr=1e-2)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = F.cross_entropy(run(ours, batch_of(name))[0], target)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.95 * losses[0]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["generator", "mobilenet", "WritesInPlace", "inplace_residual", "inplace_on_view"])
def test_what_writes_in_place_spares_what_gradients_need(name: str, method: str) -> None:
    model, data = build(name)
    ours = prepare(model.train(), policy(4, method), data)
    run(ours, batch_of(name))[0].square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in ours.parameters())


@pytest.mark.parametrize("name", ALL)
def test_what_the_network_returns_lies_on_the_grids_of_its_last_layers(name: str) -> None:
    graph = graph_of(build(name)[0], batch_of(name))
    grids = place_policy_quantizers(policy(4), graph).grid_of
    outputs = [out for out in run(copy.deepcopy(prepared(name)).eval(), batch_of(name)) if out.is_floating_point()]
    if all(grids[layer] is not None for layer in graph.outputs):
        assert max(len(out.unique()) for out in outputs) <= 16
