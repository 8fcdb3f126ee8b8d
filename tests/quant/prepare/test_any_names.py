"""Layers of any name: every stage takes them, and calls them the same."""

from __future__ import annotations

import copy
import io
import json
from pathlib import Path

import pytest
import torch
from helpers.training_networks import trained
from helpers.zoo import noise
from torch import Tensor, nn

from hessrank import Policy, Ranking, make_policy, prepare, rank
from hessrank.data.batch import Batch
from hessrank.distill.teacher.teacher import Teacher
from hessrank.quant.export import export_onnx, write_scales
from hessrank.quant.prepare import QuantizedModel
from hessrank.quant.prepare.tracing import trace

INSIDE = [
    *("class", "self", "print", "getattr", "yes", "0", "~", "graph"),
    *('a"b', " x", "a: b", "$a{", "a\rb", "\x00", "\u2028", "日本", "\u00e9", "fi"),
]
TOP = [
    *(
        "in",
        "None",
        "lambda",
        "torch",
        "null",
        "1e3",
        "-",
        "a'b",
        "x y",
        "a-b",
        "#",
        "a\nb",
        "a\\",
        "\x1b[31m",
        "[/x]",
        "e\u0301",
    ),
    *("ﬁ", "Conv1", "conv1", "self", "quantizer"),
]
TAKEN = ["graph", "code", "meta", "table", "quantizers"]
"""What a graph module has itself."""


class Named(nn.Module):
    """A chain of layers with names, in a module or at the top; a weight and a buffer, too."""

    def __init__(self, words: list[str], *, top: bool = False, width: int = 3) -> None:
        super().__init__()
        layers = {word: nn.Linear(width, width) for word in words}
        for word in layers if top else ():
            self.add_module(word, layers[word])
        self.words = tuple(layers) if top else tuple(f"inside.{word}" for word in layers)
        self.inside = nn.ModuleDict({} if top else layers)
        self.register_parameter("is", nn.Parameter(torch.full((width,), 1.5)))
        self.register_buffer('"', torch.full((width,), 0.25))

    def forward(self, x: Tensor) -> Tensor:
        for word in self.words:
            _, inside, name = word.rpartition("inside.")
            x = x + 0.3 * torch.relu((self.inside if inside else self)._modules[name](x))  # type: ignore[misc]
        return x * getattr(self, "is") + getattr(self, '"')


@pytest.fixture(params=["inside", "top"], scope="module")
def network(request: pytest.FixtureRequest) -> Named:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return (Named(INSIDE) if request.param == "inside" else Named(TOP + TAKEN, top=True)).eval()


@pytest.fixture(scope="module")
def prepared(network: Named) -> QuantizedModel:
    return prepare(network, Policy(), noise(4, 3, seed=1))


def test_tables_and_policies_hold_every_name_as_it_is(network: Named, tmp_path: Path) -> None:
    ranking = rank(network, noise(2, 3, seed=1), max_probes=2)
    ranking.to_csv(tmp_path / "r.csv")
    assert set(network.words) < set(ranking)
    assert list(Ranking.read(tmp_path / "r.csv")) == list(ranking)
    policy = make_policy(Ranking.read(tmp_path / "r.csv"), high_bits=10)
    policy.write(tmp_path / "p.yaml")
    assert Policy.read(tmp_path / "p.yaml") == policy


def test_prepared_model_computes_what_the_network_does(network: Named, prepared: QuantizedModel) -> None:
    x = noise(4, 3, seed=1)
    plain = copy.deepcopy(prepared)
    plain.set_quantizing(False)
    assert torch.allclose(plain(x), network(x), rtol=1e-5)
    assert set(network.words) <= {one.layer for one in prepared.inserted if one.tensor == "weight"}


def test_copies_and_pickles_compute_the_same(prepared: QuantizedModel) -> None:
    x, file = noise(4, 3, seed=1), io.BytesIO()
    torch.save(prepared, file)
    file.seek(0)
    for other in (copy.deepcopy(prepared), torch.load(file, weights_only=False)):
        assert torch.equal(other(x), prepared(x))
        assert set(prepared.layer_nodes.values()) <= {node.name for node in other.graph.nodes}
        assert set(other.state_dict()) == set(prepared.state_dict())


def test_weights_keep_their_names_but_for_what_a_graph_module_needs(network: Named, prepared: QuantizedModel) -> None:
    gone = {name.rpartition(".")[0] for name in set(network.state_dict()) - set(prepared.state_dict())}
    assert gone == set(TAKEN) & set(network.words)


def test_exported_file_has_the_same_names(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    words = ["in", 'a"b', "a\x00b", "日本", "e\u0301", "self"]
    prepared = prepare(Named([*words, "graph"], top=True), Policy(), noise(4, 3, seed=1))
    report = export_onnx(prepared, tmp_path / "m.onnx", noise(4, 3, seed=1), dynamic=False)
    assert report.largest_difference <= 1
    stored = {one.name.partition(".quantized.")[0] for one in onnx.load(tmp_path / "m.onnx").graph.initializer}
    assert {*words, "graph_", "is", '"'} <= stored
    write_scales(prepared, tmp_path / "s.json")
    tensors = json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))["tensors"]
    assert [one["layer"] for one in tensors] == [one.layer for one in prepared.inserted]


def test_teacher_answers_by_every_name(network: Named) -> None:
    x = noise(2, 3, seed=2)
    output, found = Teacher(network, Batch((x,), {}, samples=(0, 1)), network.words)(Batch((x,), {}, samples=(0, 1)))
    assert torch.allclose(output, network(x))
    assert tuple(found) == network.words


def test_training_with_a_teacher_on_such_layers(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Named(["in", 'a"b', "graph", "日本"], top=True, width=6)
    policy = {"distill_config": ["in", 'a"b', "graph"], "distill_coeff": [0.5, 0.3, 0.2]}
    result = trained(tmp_path / "run", policy, network, epochs=1)
    assert "graph_.weight" in result.model.state_dict()


def test_names_that_torch_takes_for_one_stay_two() -> None:
    class Alike(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.Add, self.add_1 = nn.Linear(3, 3), nn.Linear(3, 3)
            self.a_b, self.a = nn.Linear(3, 3), nn.ModuleDict({"b": nn.Linear(3, 3)})

        def forward(self, x: Tensor) -> Tensor:
            return self.a.b(self.a_b(self.add_1(torch.add(self.Add(x), x))))

    model, x = Alike().eval(), noise(2, 3, seed=1)
    traced = trace(model, Batch((x,), {}, samples=(0, 1)))
    assert torch.equal(traced.module(x), model(x))
    assert {"Add", "add_1", "a_b", "a.b", "add_1_call"} <= set(traced.graph.nodes)
