"""Taps: the activation of every layer, by name, of any network that can be traced, and nothing left behind."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import field_networks
from helpers.field_networks import FIELD
from helpers.training_networks import Net, trained
from helpers.zoo import ZOO, changes, state
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from hessrank.data.batch import Batch
from hessrank.data.samples import as_samples
from hessrank.distill.teacher.activations import tapped
from hessrank.distill.teacher.teacher import Teacher, trace_network
from hessrank.errors import ModelError, UnknownNameError
from hessrank.network.frozen_model import freeze
from hessrank.network.network import Network
from hessrank.network.sample_batches import SampleBatches
from hessrank.quant.policy import Policy
from hessrank.quant.prepare import prepare

TRACEABLE = [*FIELD, *(name for name, animal in ZOO.items() if animal.traced and not animal.error)]
FOUR_BITS = Policy.of({"extra_qconfig_dict": {"w_qscheme": {"bit": 4}, "a_qscheme": {"bit": 4}}})


def build(name: str) -> tuple[nn.Module, Any]:
    return field_networks.build(name) if name in FIELD else (ZOO[name].build(), ZOO[name].data())


def batch_of(model: nn.Module, data: Any) -> Batch:
    samples = as_samples(data)
    return SampleBatches(samples, model, len(samples), needs_target=False).batch(*range(len(samples)))


def activations(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """Return what the analysis sees of every layer, each copied before anything can write to it."""
    seen: dict[str, Tensor] = {}
    with freeze(model):
        network = Network(model, batch)
        network.run(batch, lambda layer, call, value: seen.__setitem__(layer.name, value.clone()))
    return {name: value for name, value in seen.items() if name not in network.inside}


def run(module: nn.Module, batch: Batch) -> tuple[Any, dict[str, Tensor]]:
    fresh = batch.map(torch.clone)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(7)
        found: tuple[Any, dict[str, Tensor]] = module(*fresh.args, **fresh.kwargs)
    return found


@pytest.mark.parametrize("name", [name for name in TRACEABLE if name != "noisy"])  # the analysis fixes its noise
def test_a_tap_gives_what_the_analysis_sees(name: str) -> None:
    model, data = build(name)
    batch = batch_of(model, data)
    expected = activations(copy.deepcopy(model), batch)
    graph = trace_network(model, batch)
    output, found = run(tapped(graph.module, graph.nodes, list(expected)).eval(), batch)
    assert found.keys() == expected.keys()
    for layer, value in expected.items():
        torch.testing.assert_close(found[layer], value, rtol=1e-5, atol=1e-6, msg=layer, equal_nan=True)
    plain = run(copy.deepcopy(graph.module).eval(), batch)
    for one, other in zip(tree_leaves(output), tree_leaves(plain), strict=True):
        assert not isinstance(one, Tensor) or torch.equal(one, other)


@pytest.mark.parametrize("name", TRACEABLE)
def test_the_model_is_left_as_it_was(name: str) -> None:
    model, data = build(name)
    before = state(model)
    Teacher(model, batch_of(model, data), list(activations(copy.deepcopy(model), batch_of(model, data)))[:1])
    assert not changes(before, state(model))


def test_an_activation_that_is_written_over_is_kept_from_before() -> None:
    """Convolution, then an activation in place: a naive tap of the convolution sees the activation's result."""
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(inplace=True), nn.Flatten())
    batch = Batch((torch.randn(2, 1, 5, 5, generator=torch.Generator().manual_seed(0)),))
    graph = trace_network(model, batch)
    _, found = run(tapped(graph.module, graph.nodes, ["0", "1"]), batch)
    assert float(found["0"].min()) < 0
    assert torch.equal(found["1"], found["0"].relu())


def test_taps_share_parameters_and_carry_gradients() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    batch = Batch((torch.ones(1, 3),))
    student = prepare(model, FOUR_BITS, torch.ones(2, 3))
    view = tapped(student, student.layer_nodes, ["1"])
    _, found = view(*batch.args)
    found["1"].sum().backward()
    own = dict(student.named_parameters())
    assert own["0.weight"].grad is not None
    assert own["2.weight"].grad is None
    assert {id(p) for p in view.parameters()} <= {id(p) for p in student.parameters()}


def test_a_quantized_layers_tap_lies_on_its_grid() -> None:
    model = nn.Sequential(nn.Linear(3, 64), nn.ReLU(), nn.Linear(64, 2))
    student = prepare(model, FOUR_BITS, torch.randn(8, 3, generator=torch.Generator().manual_seed(0))).eval()
    _, found = run(tapped(student, student.layer_nodes, ["1"]), Batch((torch.randn(5, 3),)))
    assert len(found["1"].unique()) <= 16


def test_the_graph_that_is_tapped_stays_as_it_was() -> None:
    student = prepare(nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True)), FOUR_BITS, torch.ones(2, 3))
    before = str(student.graph)
    tapped(student, student.layer_nodes, ["0", "1"])
    assert str(student.graph) == before
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in student.modules())


def test_a_layer_that_is_not_there_names_the_nearest() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    graph = trace_network(model, Batch((torch.ones(1, 3),)))
    with pytest.raises(UnknownNameError, match="no layer named '3'; nearest is"):
        tapped(graph.module, graph.nodes, ["3"])


class TestTeacher:
    def test_it_answers_as_the_model_does_without_gradients(self) -> None:
        model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 2)).train()
        batch = Batch((torch.randn(5, 3),))
        teacher = Teacher(model, batch, ["0"])
        output, found = teacher(batch)
        assert torch.equal(output, copy.deepcopy(model).eval()(*batch.args))
        assert torch.equal(found["0"], model[0](*batch.args))
        assert not output.requires_grad
        assert not found["0"].requires_grad
        assert torch.equal(teacher.answer(*batch.args), output)

    def test_a_quantized_one_is_copied(self) -> None:
        student = prepare(nn.Sequential(nn.Linear(3, 4), nn.ReLU()), FOUR_BITS, torch.ones(2, 3)).train()
        Teacher(student, Batch((torch.ones(1, 3),)), ["0"])
        assert all(parameter.requires_grad for parameter in student.parameters())
        assert student.training

    def test_one_that_cannot_be_traced_is_named_as_the_teacher(self, tmp_path: Path) -> None:
        class Branches(Net):
            def forward(self, x: Tensor) -> Tensor:
                return super().forward(x if x.sum() > 0 else -x)

        with pytest.raises(ModelError, match=r"^the teacher: .*torch.fx cannot trace"):
            trained(tmp_path, teacher=Branches())
