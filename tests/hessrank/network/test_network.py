"""The two walks agree; taps see, replace and watch activations; what cannot run says so in one line."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from helpers.zoo import ZOO, images, noise, vectors
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from hessrank.analysis.rank import rank
from hessrank.data.batch import Batch, make_batch
from hessrank.data.samples import as_samples
from hessrank.errors import DataError, HessrankError, ModelError
from hessrank.models.wrappers import unwrap
from hessrank.network.frozen_model import freeze
from hessrank.network.layer_names import Layer
from hessrank.network.layer_survey import find_never_run
from hessrank.network.network import Network
from hessrank.network.walks.call import Call

TRACED = [name for name, animal in ZOO.items() if animal.error is None and animal.traced]


def choosing(model: nn.Module) -> nn.Module:
    """Return the model with a branch on its data in ``forward``, which torch.fx cannot follow."""
    original = type(model).forward

    @functools.wraps(original)
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        tensor = next(leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor | fx.Proxy))
        if tensor.isnan().all():
            raise ValueError("NaN")
        return original(self, *args, **kwargs)

    model.__class__ = type(type(model).__name__, (type(model),), {"forward": forward})
    return model


class Twice(torch.autograd.Function):
    """What no hook sees, nor a mode for functions."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        return 2 * slope


def network_of(model: nn.Module, data: Any) -> Network:
    with freeze(model):
        weights = [p for p in model.parameters() if p.is_floating_point()]
        batch = make_batch(as_samples(data), [0], model, needs_target=False)
        dtype = weights[0].dtype if weights else torch.float32
        return Network(model, batch.map(lambda t: t.to(dtype) if t.is_floating_point() else t))


def names_of_calls(network: Network) -> list[str]:
    return [
        layer.name
        for layer in network.layers
        if layer.module and "[" not in layer.name  # one of several tensors: an item of a tuple in the graph
    ]


@pytest.mark.parametrize("name", TRACED)
def test_both_walks_give_the_same_names(name):
    animal = ZOO[name]
    graph, hooks = (network_of(m, animal.data()) for m in (unwrap(animal.build()), choosing(unwrap(animal.build()))))
    assert graph.traced
    assert graph.why_hooks == ""
    assert not hooks.traced
    assert "torch.fx cannot trace it" in hooks.why_hooks
    blocks = {path for path, module in hooks.model.named_modules() if list(module.children())}
    handing_on = {layer.name for layer in graph.layers if layer.kind.startswith(("Dropout", "Identity"))}
    left_out = blocks | handing_on
    expected = [name for name in names_of_calls(graph) if name not in left_out]
    assert [name for name in names_of_calls(hooks) if name not in left_out] == expected


@pytest.mark.parametrize("name", TRACED)
def test_both_walks_give_the_same_traces(name):
    animal = ZOO[name]
    options = {"estimator": "exact", "bits": (8,), "num_samples": 2}
    graph = rank(animal.build(), animal.data(), **options)
    hooks = rank(choosing(animal.build()), animal.data(), **options)
    common = set(graph) & set(hooks)
    assert common or name == "identity"  # it has no layer but its argument, which torch.fx calls input_1
    for layer in common:
        assert hooks[layer].trace == pytest.approx(graph[layer].trace, rel=1e-4, abs=1e-9), layer
        assert hooks[layer].weight_trace == pytest.approx(graph[layer].weight_trace, rel=1e-4, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("lstm", ["x", "lstm[0]", "lstm[1][0]", "lstm[1][1]", "last"]),
        ("attention", ["x", "norm", "attention[0]", "attention[1]", "add", "last"]),
        ("bare_parameter", ["x", "matmul", "relu"]),
        ("modules_named_input_and_output", ["x", "input", "output"]),
        ("name_of_a_duplicate_taken", ["x", "relu", "fc", "relu_dup2", "relu_dup1"]),
        ("one_module_two_names", ["x", "first", "fc", "first_dup1"]),
        ("dict_input", ["batch['a']", "batch['b']", "left", "right", "add"]),
        ("variadic", ["xs[0]", "xs[1]", "left", "right", "add"]),
    ],
)
def test_names_by_hooks(name, expected):
    animal = ZOO[name]
    assert [layer.name for layer in network_of(choosing(animal.build()), animal.data()).layers] == expected


def test_the_outcome_of_the_whole_network_beside_a_module_called_output():
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.output = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return Twice.apply(self.output(x))

    assert [layer.name for layer in network_of(choosing(Model()), vectors()).layers] == ["x", "output", "output_call"]


def test_an_argument_named_like_a_module():
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.x = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.x(x)

    for model in (Model(), choosing(Model())):
        assert [layer.name for layer in network_of(model, vectors()).layers] == ["x_call", "x"]


def test_an_unfaithful_graph_is_not_used():
    class Aliased(nn.Module):
        """``+=`` writes into what ``x`` names too; torch.fx records an addition that does not."""

        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            y = self.fc(x)
            z = y
            z += 1
            return y

    network = network_of(Aliased(), vectors())
    assert network.why_hooks == "its torch.fx graph gives another output"
    assert [layer.name for layer in network.layers] == ["x", "fc", "add_"]


def test_an_output_class_that_cannot_tell_its_places():
    network = network_of(ZOO["hugging_face_style"].build(), ZOO["hugging_face_style"].data())
    assert network.layers[-1].name == "classifier"

    class WithAttentions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = ZOO["hugging_face_style"].build()

        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
            answer = self.body(input_ids, attention_mask, output_attentions=True)
            answer["logits"] = Twice.apply(answer["logits"])
            return answer

    names = [layer.name for layer in network_of(WithAttentions(), ZOO["hugging_face_style"].data()).layers]
    assert names[-1] == "output[0]"


def test_kinds_modules_and_order():
    network = network_of(ZOO["named_like_functions"].build(), vectors())
    assert [(layer.name, layer.kind, layer.module, layer.execution_index) for layer in network.layers] == [
        ("x", "input", None, 0),
        ("add", "Linear", "add", 1),
        ("relu_1", "Linear", "relu_1", 2),
        ("relu", "relu", None, 3),
        ("add_1", "add", None, 4),
        ("cat", "cat", None, 5),
    ]


def test_what_does_not_depend_on_the_data_is_no_layer():
    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.places = nn.Embedding(11, 4), nn.Embedding(8, 4)
            self.shift = nn.Parameter(torch.ones(4))

        def forward(self, ids: Tensor) -> Tensor:
            return self.words(ids) + self.places(torch.arange(ids.shape[1])) + self.shift * 2

    model = Positions()
    network = network_of(model, torch.tensor([[1, 2, 3]]))
    assert [layer.name for layer in network.layers] == ["words", "add", "add_1"]
    assert find_never_run(network) == []


def _values(network: Network, batch: Batch, **options: Any) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}

    def tap(layer: Layer, call: Call, value: Tensor) -> None:
        found[layer.name] = value.detach().clone()

    network.run(batch, tap, **options)
    return found


@pytest.mark.parametrize("build", [lambda m: m, choosing], ids=["graph", "hooks"])
def test_taps_see_the_activations(build):
    model = build(ZOO["inplace_activation"].build())
    with freeze(model):
        batch = Batch((images()[:2],), samples=(0, 1))
        network = Network(model, batch)
        seen = _values(network, batch)
        conv = model.conv(images()[:2])
        expected = {"x": images()[:2], "conv": conv, "relu": conv.relu(), "last": model.last(conv.relu())}
    assert list(seen) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(seen[name], value)


@pytest.mark.parametrize("differentiable", [False, True])
@pytest.mark.parametrize("build", [lambda m: m, choosing], ids=["graph", "hooks"])
def test_a_tap_replaces(build, differentiable):
    model = build(ZOO["inplace_activation"].build())
    with freeze(model):
        batch = Batch((images()[:1],))
        network = Network(model, batch)

        def double(layer: Layer, call: Call, value: Tensor) -> Tensor | None:
            return 2 * value if layer.name == "conv" else None

        got = network.run(batch, double, differentiable=differentiable).output
        expected = model.last((2 * model.conv(images()[:1])).relu())
    torch.testing.assert_close(got.detach(), expected)


@pytest.mark.parametrize("build", [lambda m: m, choosing], ids=["graph", "hooks"])
def test_gradients_reach_every_layer_and_no_parameter(build):
    animal = ZOO["tied_embedding"]
    model = build(animal.build())
    with freeze(model):
        batch = Batch((animal.data()[:1],))
        network = Network(model, batch)
        reached: set[str] = set()

        def watch(layer: Layer, call: Call, value: Tensor) -> None:
            value.register_hook(lambda _: reached.add(layer.name))

        run = network.run(batch, watch, differentiable=True)
        assert len(run.roots) == 1  # what the embedding made of integers
        assert run.output.requires_grad
        torch.autograd.grad(run.output.sum(), run.roots)
    assert reached == set(animal.layers)
    assert all(p.grad is None for p in model.parameters())


def test_without_gradients_nothing_is_recorded():
    model = ZOO["reused"].build()
    with freeze(model):
        network = Network(model, Batch((images()[:1],)))
        run = network.run(Batch((images()[:1],)), lambda *_: None)
    assert not run.output.requires_grad
    assert run.roots == ()


def test_a_batch_can_be_run_twice_though_the_network_writes_into_it():
    animal = ZOO["inplace_on_tokens"]
    model = choosing(animal.build())
    with freeze(model):
        batch = Batch((animal.data()[:1],))
        network = Network(model, batch)
        first, second = (network.run(batch, lambda *_: None).output for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(batch.args[0], animal.data()[:1])


def test_views_that_are_written_through_are_left_out():
    network = network_of(ZOO["inplace_on_view"].build(), images())
    assert network.left_out == ("getitem", "relu_")
    assert [layer.execution_index for layer in network.layers] == [0, 1, 2]


@pytest.mark.parametrize("name", ["never_run", "attention", "lstm", "layer_scale", "transformer_encoder", "residual"])
@pytest.mark.parametrize("build", [lambda m: m, choosing], ids=["graph", "hooks"])
def test_modules_that_never_run(name, build):
    idle = find_never_run(network_of(build(ZOO[name].build()), ZOO[name].data()))
    assert idle == (["two", "idle.0"] if name == "never_run" else [])


@pytest.mark.parametrize(
    ("model", "data", "error", "message"),
    [
        pytest.param(
            nn.Linear(5, 2),
            vectors(),
            DataError,
            r"does not take this input \(float32 1×4\): .*1x4 and 5x2",
            id="shape",
        ),
        pytest.param(nn.Embedding(3, 2), torch.tensor([[7]]), DataError, r"\(int64 1×1\): .*index", id="token"),
        pytest.param(
            nn.Linear(4, 2), torch.ones(1, 4, dtype=torch.int64), DataError, r"\(int64 1×4\)", id="integers"
        ),
        pytest.param(ZOO["keyword_only"].build(), vectors(), DataError, r"\(float32 1×4\)", id="missing-argument"),
        pytest.param(nn.ModuleList([nn.Linear(4, 2)]), vectors(), HessrankError, "ModuleList", id="no-forward"),
    ],
)
def test_what_cannot_run(model, data, error, message):
    with pytest.raises(error, match=message) as caught:
        network_of(model, data)
    assert "\n" not in str(caught.value)


def test_a_later_batch_of_another_shape():
    model = nn.Linear(4, 2)
    with freeze(model):
        network = Network(model, Batch((vectors()[:1],)))
        with pytest.raises(DataError, match="float32 1×7"):
            network.run(Batch((noise(1, 7),)), lambda *_: None)


def test_an_error_of_a_tap_is_its_own():
    model = nn.Linear(4, 2)

    def tap(*_: Any) -> None:
        raise ModelError("my own")

    with freeze(model):
        network = Network(model, Batch((vectors()[:1],)))
        with pytest.raises(ModelError, match=r"^my own$"):
            network.run(Batch((vectors()[:1],)), tap)


@pytest.mark.parametrize("error", [MemoryError, torch.OutOfMemoryError])
def test_lack_of_memory_is_passed_on(error):
    model = nn.Linear(4, 2)

    def tap(*_: Any) -> None:
        raise error("no more")

    with freeze(model):
        network = Network(model, Batch((vectors()[:1],)))
        with pytest.raises(error, match="no more"):
            network.run(Batch((vectors()[:1],)), tap)
