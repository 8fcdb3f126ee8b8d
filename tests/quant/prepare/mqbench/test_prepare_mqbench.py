"""Policies executed by MQBench; without it, only what is said about its absence."""

import copy
import importlib.util
import logging
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers.places import SHIPPED
from torch import Tensor, fx, nn

import hessrank
from hessrank.errors import ModelError, UnknownNameError
from hessrank.quant.policy import Policy, PolicyError
from hessrank.quant.prepare.mqbench.library import INSTALL, MQBenchError, give_moved_name_back, load_mqbench
from hessrank.quant.prepare.mqbench.prepare_mqbench import describe, prepare_mqbench, unquantized

needs_mqbench = pytest.mark.skipif(importlib.util.find_spec("mqbench") is None, reason="mqbench is not installed")
LOWLIGHT = SHIPPED

BOTH = {"weight": "10 per_channel_affine", "activation": "10 per_tensor_affine"}
TEN_BIT_LAYERS = [
    "DBF.DBF_conv1.Conv1", "DBF.DBF_conv1.lrelu", "DBF.DBF_conv1.Conv2", "DBF.DBF_conv9.Conv2",
    "DBF.DBF_conv9.lrelu_dup1", "DBF.DBF_out", "DBLE.color_conv1.Conv1", "DBLE.color_conv1.lrelu",
    "DBLE.color_conv1.Conv2", "DBLE.mono_conv1.Conv1", "DBLE.mono_conv1.lrelu", "DBLE.mono_conv1.Conv2",
    "DBLE.dual_conv9.Conv1", "DBLE.dual_conv9.lrelu", "DBLE.dual_conv9.Conv2", "DBLE.DBLE_out",
]  # fmt: skip
FIRST_USERS = {
    "extra_quantizer_dict": {
        "special_layer": {
            "input_layer": 10,
            **dict.fromkeys(TEN_BIT_LAYERS, BOTH),
            "DBLE.dual_conv9.lrelu_dup1": {"activation": "10 per_tensor_affine"},
        }
    }
}


class Classifier(nn.Module):
    """Convolutions with batch norm and ReLU, a residual addition, pooling, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.relu = nn.ReLU()
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(x + self.bn2(self.conv2(x)))
        return self.fc(torch.flatten(self.pool(x), 1))


class Recurrent(nn.Module):
    """One linear layer called twice, and an argument that the data does not hold."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.act, self.out = nn.Linear(5, 5), nn.LeakyReLU(0.2), nn.Linear(5, 3)

    def forward(self, x: Tensor, scale: float = 2.0) -> Tensor:
        return self.out(self.act(self.linear(self.act(self.linear(x))))) * scale


class Sizes(nn.Module):
    """Computes with a size, which MQBench takes for a tensor, and gives an activation by name."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.out = nn.Linear(6, 6), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.inner(x)
        half = h.shape[1] * 2 // 4
        return self.out(F.softplus(input=h)[:, :half] + h[:, half:])


class Branching(nn.Module):
    """Cannot be traced: what it does depends on the data."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.sum() > 0 else x


def _images(count: int = 2) -> Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def _bits(prepared: fx.GraphModule, tensor: str) -> dict[str, int]:
    table = describe(prepared)
    rows = table[table.tensor == "weight"] if tensor == "weight" else table[table.tensor != "weight"]
    return dict(zip(rows.layer, rows.bits, strict=True))


def _methods(w: str, a: str, **more: Any) -> Policy:
    return Policy.of({"extra_qconfig_dict": {"w_fakequantize": w, "a_fakequantize": a, **more}})


@pytest.fixture
def no_mqbench_imported() -> Iterator[None]:
    kept = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "mqbench"}
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "mqbench"]:
        del sys.modules[name]
    sys.modules.update(kept)


@pytest.fixture(scope="module")
def lowlight() -> nn.Module:
    torch.manual_seed(0)
    return hessrank.load_model(LOWLIGHT).model


@pytest.fixture(scope="module")
def prepared_lowlight(lowlight: nn.Module) -> fx.GraphModule:
    return prepare_mqbench(lowlight, Policy.of(FIRST_USERS), torch.rand(2, 1, 32, 32))


def test_without_mqbench_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "mqbench" else found(name))
    with pytest.raises(MQBenchError) as caught:
        prepare_mqbench(Classifier(), Policy(), _images())
    assert str(caught.value) == f"mqbench is not installed: {INSTALL}"


@pytest.mark.usefixtures("no_mqbench_imported")
def test_an_import_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mqbench").mkdir()
    (tmp_path / "mqbench" / "__init__.py").write_text("")
    (tmp_path / "mqbench" / "prepare_by_platform.py").write_text("import prettytabel\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        MQBenchError, match="its import fails with ModuleNotFoundError: No module named 'prettytabel'"
    ):
        load_mqbench()


def test_the_name_that_torch_moved_can_be_imported_again() -> None:
    give_moved_name_back()
    from torch.onnx import _type_utils

    assert _type_utils.JitScalarType.FLOAT


def test_a_name_that_torch_still_has_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    own = object()
    monkeypatch.setattr(torch.onnx, "_type_utils", own, raising=False)
    give_moved_name_back()
    assert torch.onnx._type_utils is own


@needs_mqbench
def test_the_first_users_policy_has_its_bits_everywhere(prepared_lowlight: fx.GraphModule) -> None:
    activations, weights = _bits(prepared_lowlight, "activation"), _bits(prepared_lowlight, "weight")
    special = FIRST_USERS["extra_quantizer_dict"]["special_layer"]
    shuffled = {"unshuffle", "unshuffle_dup1"}  # on the grids of the input and of DBF.DBF_out
    assert {layer for layer, bits in activations.items() if bits == 10} == (
        set(special) - {"input_layer"}
    ) | shuffled | {"raw"}
    assert {layer for layer, bits in weights.items() if bits == 10} == {
        layer for layer in TEN_BIT_LAYERS if "lrelu" not in layer
    }
    assert set(activations.values()) == set(weights.values()) == {8, 10}
    assert not [why for why in unquantized(prepared_lowlight).values() if "asks for it" in why]


@needs_mqbench
def test_each_quantizer_and_its_observer_have_the_integers_of_the_policy(prepared_lowlight: fx.GraphModule) -> None:
    table = describe(prepared_lowlight)
    assert len(table) == 174
    rows = prepared_lowlight.meta["hessrank"]["inserted"]
    for (_, told), row in zip(table.iterrows(), rows, strict=True):
        quantizer = prepared_lowlight.get_submodule(row["quantizer"])
        for holder in (quantizer, quantizer.activation_post_process):
            assert (holder.quant_min, holder.quant_max) == (0, 2**told.bits - 1)
            assert holder.qscheme == (
                torch.per_channel_affine if told.tensor == "weight" else torch.per_tensor_affine
            )


@needs_mqbench
@pytest.mark.parametrize("word", ["affine", "symmetric"])
@pytest.mark.parametrize("bits", [2, 4, 8, 10, 16])
def test_a_layers_result_lies_on_the_grid_that_is_read_back(bits: int, word: str) -> None:
    special = {"0": {"weight": f"{bits} per_tensor_{word}", "activation": f"{bits} per_tensor_{word}"}}
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Conv2d(3, 4, 3)), _images()
    prepared = prepare_mqbench(model, Policy.of({"extra_quantizer_dict": {"special_layer": special}}), x)
    table = describe(prepared).set_index(["layer", "tensor"])
    assert table.loc[("0", "weight"), "bits"] == table.loc[("0", "activation"), "bits"] == bits
    steps = prepared(x).detach() / table.loc[("0", "activation"), "scale"]
    # float32 holds 24 bits, so at 16 bits a multiple of the step is one to a few hundredths
    assert (steps - steps.round()).abs().max() < 1e-2
    assert steps.round().max() - steps.round().min() <= (2**bits - 1 if word == "affine" else 2**bits - 2)


@needs_mqbench
def test_the_output_is_what_rounding_by_hand_gives() -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Conv2d(3, 4, 3)), _images(3)
    data = {"0": {"weight": "5 per_channel_symmetric", "activation": "6 affine"}, "input_layer": 4}
    prepared = prepare_mqbench(model, Policy.of({"extra_quantizer_dict": {"special_layer": data}}), x, batch_size=3)

    def rounded(t: Tensor, bits: int, seen: Tensor) -> Tensor:
        low, high = min(float(seen.min()), 0.0), max(float(seen.max()), 0.0)
        scale = torch.tensor((high - low) / (2**bits - 1))
        zero = torch.round(-torch.tensor(low) / scale)
        return (torch.clamp(torch.round(t / scale) + zero, 0, 2**bits - 1) - zero) * scale

    with torch.no_grad():
        weight = model[0].weight
        scale = weight.abs().amax((1, 2, 3), keepdim=True) / 15
        result = F.conv2d(rounded(x, 4, x), torch.round(weight / scale) * scale, model[0].bias)
        by_hand = rounded(result, 6, model(x))  # ranges are those of the float network
        difference = (prepared(x) - by_hand).abs()
    step = describe(prepared).set_index(["layer", "tensor"]).loc[("0", "activation"), "scale"]
    # equal, but where a sum lies within float rounding of the middle between two steps
    assert difference.max() <= step * 1.001
    assert (difference > step / 2).float().mean() < 1e-3


@needs_mqbench
def test_the_channels_of_a_transposed_convolution_are_those_of_its_output() -> None:
    torch.manual_seed(0)
    prepared = prepare_mqbench(nn.Sequential(nn.ConvTranspose2d(3, 5, 2)), Policy(), _images())
    kernel = prepared.get_submodule("0")
    low, high = (reduce(kernel.weight.detach(), (0, 2, 3)) for reduce in (torch.amin, torch.amax))
    torch.testing.assert_close(kernel.weight_fake_quant.scale, (high - low) / 255)


@needs_mqbench
def test_a_fused_module_has_the_bits_of_the_activation_that_is_fused_into_it() -> None:
    special = {"relu": {"activation": 6}, "bn2": {"activation": 6}, "relu_dup1": {"activation": 7}, "x": 9}
    prepared = prepare_mqbench(
        Classifier(), Policy.of({"extra_quantizer_dict": {"special_layer": special}}), _images()
    )
    bits = _bits(prepared, "activation")
    assert {layer: bits[layer] for layer in special} == {"relu": 6, "bn2": 6, "relu_dup1": 7, "x": 9}


@needs_mqbench
def test_inside_a_kernel_mqbench_quantizes_with_the_bits_of_the_kernels_result() -> None:
    """SNPE requantizes between a convolution and its LeakyReLU; the policy speaks of the LeakyReLU only."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.LeakyReLU(0.1), nn.Conv2d(4, 2, 3))
    policy = Policy.of({"extra_quantizer_dict": {"special_layer": {"1": {"activation": 11}}}})
    assert _bits(prepare_mqbench(model, policy, _images(), platform="SNPE"), "activation") == {
        "input_1": 8,
        "0": 11,
        "1": 11,
        "2": 8,
    }


@needs_mqbench
@pytest.mark.parametrize(
    ("w", "a", "more"),
    [
        ("fixed", "fixed", {}),
        ("lsq", "lsq", {"a_observer": "moving-average"}),
        ("lsq", "lsq", {"w_observer": "mean-magnitude"}),
        ("dsq", "dsq", {"w_observer": "mse", "a_observer": "mse"}),
        ("dorefa", "fixed", {"a_observer": "percentile"}),
        ("fixed", "pact", {}),
    ],
    ids=["fixed", "lsq", "lsq-start", "dsq", "dorefa", "pact"],
)
def test_a_step_of_an_optimizer_changes_every_weight(w: str, a: str, more: dict[str, Any]) -> None:
    torch.manual_seed(0)
    prepared = prepare_mqbench(Classifier().train(), _methods(w, a, **more), _images())
    table = describe(prepared)
    assert set(table[table.tensor == "weight"].method) == {w}
    assert set(table[table.tensor != "weight"].method) == {a}
    assert set(table[table.tensor == "weight"].observer) == {more.get("w_observer", "minmax")}
    assert set(table[table.tensor != "weight"].observer) == {more.get("a_observer", "minmax")}
    assert table.scale.gt(0).all()
    assert table.scale.ne(1).all()  # where they start: every one was calibrated
    weights = {name: p for name, p in prepared.named_parameters() if name.split(".")[-1] in ("weight", "bias")}
    before = {name: parameter.detach().clone() for name, parameter in weights.items()}
    loss = F.cross_entropy(prepared(_images()), torch.tensor([0, 1]))
    loss.backward()
    torch.optim.SGD(prepared.parameters(), lr=0.1).step()
    assert loss.isfinite()
    assert [name for name in weights if torch.equal(weights[name], before[name])] == []


@needs_mqbench
def test_the_thresholds_of_pact_are_trained() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    prepared = prepare_mqbench(model.train(), _methods("fixed", "pact"), 20 * torch.rand(8, 4))  # beyond MQBench's 6
    prepared(20 * torch.rand(8, 4)).sum().backward()
    alpha = prepared.get_submodule("input_1_post_act_fake_quantizer").alpha
    assert alpha.item() == 6
    assert alpha.grad is not None
    assert alpha.grad.item() != 0


@needs_mqbench
def test_the_low_light_network_trains(prepared_lowlight: fx.GraphModule) -> None:
    model = copy.deepcopy(prepared_lowlight).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    x = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    losses = []
    for _ in range(4):
        mono, rgb = model(x)
        loss = (mono - 0.5).square().mean() + (rgb - 0.5).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


@needs_mqbench
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_the_users_model_is_not_touched(training: bool) -> None:
    model = Classifier().train(training)
    state, identities = copy.deepcopy(model.state_dict()), {name: id(p) for name, p in model.named_parameters()}
    attributes = {name: set(vars(module)) for name, module in model.named_modules()}
    dictionaries = [set(vars(tensor)) for tensor in [*model.parameters(), *model.buffers()]]
    prepared = prepare_mqbench(model, Policy(), _images())
    prepared(_images()).sum().backward()
    torch.optim.SGD(prepared.parameters(), lr=1.0).step()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert {name: id(p) for name, p in model.named_parameters()} == identities
    assert {name: set(vars(module)) for name, module in model.named_modules()} == attributes  # no qconfig
    assert [set(vars(tensor)) for tensor in [*model.parameters(), *model.buffers()]] == dictionaries
    assert {module.training for module in model.modules()} == {training}
    assert prepared.training is training


@needs_mqbench
def test_calls_that_share_a_weight_keep_it_and_one_quantizer_for_it() -> None:
    torch.manual_seed(0)
    with pytest.warns(UserWarning, match="linear_dup1 kept on the first call's weights"):
        prepared = prepare_mqbench(Recurrent(), Policy(), torch.rand(2, 5))
    first, second = prepared.get_submodule("linear"), prepared.get_submodule("linear_dup1")
    assert first.weight is second.weight
    assert first.bias is second.bias
    assert first.weight_fake_quant is second.weight_fake_quant
    assert [name for name, _ in prepared.named_parameters()] == [
        "linear.weight",
        "linear.bias",
        "out.weight",
        "out.bias",
    ]


@needs_mqbench
def test_without_repeated_weights_there_is_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        prepare_mqbench(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), Policy(), torch.rand(2, 4))


@needs_mqbench
def test_embeddings_stay_tied_to_the_layer_that_shares_their_weight() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(10, 6), nn.Linear(6, 10, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, tokens: Tensor) -> Tensor:
            return self.head(self.embed(tokens))

    prepared = prepare_mqbench(Tied(), Policy(), torch.arange(8).reshape(2, 4))
    assert prepared.get_submodule("embed").weight is prepared.get_submodule("head").weight
    assert _bits(prepared, "weight") == {"embed": 8, "head": 8}


@needs_mqbench
def test_a_size_is_not_quantized_and_an_argument_by_name_is_read_quantized() -> None:
    prepared = prepare_mqbench(Sizes(), Policy(), torch.rand(2, 6))
    assert set(_bits(prepared, "activation")) == {
        "x", "inner", "softplus", "getitem_1", "getitem_2", "add", "out",
    }  # fmt: skip
    readers = {user.name for node in prepared.graph.nodes if node.name == "inner" for user in node.users}
    assert readers == {"inner_post_act_fake_quantizer"}


@needs_mqbench
def test_what_the_policy_wants_and_mqbench_leaves_is_listed() -> None:
    model = nn.Sequential(nn.ConvTranspose1d(2, 2, 2), nn.Sigmoid(), nn.Linear(5, 2))
    left = unquantized(prepare_mqbench(model, Policy(), torch.rand(2, 2, 4), platform="OPENVINO"))
    assert left["0.weight"] == "MQBench (OPENVINO) quantizes no such weight"
    assert left["0"] == "the policy asks for it, but MQBench (OPENVINO) puts no quantizer there"


@needs_mqbench
def test_what_the_policy_excludes_stays_in_float() -> None:
    policy = Policy.of({"extra_quantizer_dict": {"exclude_module_name": ["fc", "conv1"]}})
    prepared = prepare_mqbench(Classifier(), policy, _images())
    assert set(_bits(prepared, "weight")) == {"conv2"}
    assert "fc" not in _bits(prepared, "activation")
    assert unquantized(prepared)["fc"] == "the policy excludes it"
    h = torch.rand(2, 8)
    fc = prepared.get_submodule("fc")
    torch.testing.assert_close(fc(h), F.linear(h, fc.weight, fc.bias), rtol=0, atol=0)


@needs_mqbench
def test_layer_names_lead_to_the_node_that_readers_see() -> None:
    prepared = prepare_mqbench(Classifier(), Policy(), _images())
    nodes = prepared.meta["hessrank"]["layer_nodes"]
    assert nodes["relu"] == "conv1_post_act_fake_quantizer"
    assert nodes["add"] == "add"
    assert set(nodes.values()) <= {node.name for node in prepared.graph.nodes}


@needs_mqbench
@pytest.mark.parametrize("freeze", [True, False])
def test_freeze_bn_keeps_the_running_statistics(freeze: bool) -> None:
    prepared = prepare_mqbench(Classifier().train(), Policy(), _images(), freeze_bn=freeze)
    norm = prepared.get_submodule("conv1").bn
    before = norm.running_mean.clone()
    prepared(_images())
    assert torch.equal(norm.running_mean, before) is freeze


@needs_mqbench
@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"w_fakequantize": "lsq+"}, "conv1.weight: MQBench has no method 'lsq+'; it has lsq"),
        ({"w_observer": "percentile"}, "conv1.weight: MQBench has 'percentile' for per_tensor schemes only"),
        ({"w_fakequantize": "pact"}, "conv1.weight: MQBench has 'pact' for per_tensor schemes only"),
    ],
    ids=["lsq+", "percentile-per-channel", "pact-per-channel"],
)
def test_what_mqbench_has_not_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(MQBenchError) as caught:
        prepare_mqbench(Classifier(), Policy.of({"extra_qconfig_dict": config}), _images())
    assert str(caught.value).startswith(message)


@needs_mqbench
def test_a_name_that_the_network_lacks_is_refused() -> None:
    policy = Policy.of({"extra_quantizer_dict": {"special_layer": {"conv3": {"weight": 4}}}})
    with pytest.raises(PolicyError, match="no layer named 'conv3'"):
        prepare_mqbench(Classifier(), policy, _images())


@needs_mqbench
def test_an_entry_that_does_nothing_is_among_the_warnings() -> None:
    policy = Policy.of({"extra_quantizer_dict": {"special_layer": {"relu": {"weight": 4}}}})
    (warning,) = prepare_mqbench(Classifier(), policy, _images()).meta["hessrank"]["warnings"]
    assert "relu" in warning


@needs_mqbench
def test_an_unknown_platform_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="no MQBench platform named 'TensorRT'; nearest is 'Tensorrt'"):
        prepare_mqbench(Classifier(), Policy(), _images(), platform="TensorRT")


@needs_mqbench
def test_a_network_that_cannot_be_traced_is_refused_in_one_line() -> None:
    with pytest.raises(
        ModelError, match=r"^MQBench \(Tensorrt\) cannot prepare this network \(TraceError: "
    ) as caught:
        prepare_mqbench(Branching(), Policy(), torch.rand(2, 4))
    assert "\n" not in str(caught.value)


@needs_mqbench
def test_mqbench_says_nothing() -> None:
    said: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = said.append  # type: ignore[method-assign]
    logger = load_mqbench().logger
    logger.addHandler(handler)
    try:
        prepare_mqbench(Classifier(), Policy(), _images())
        logger.info("and speaks again afterwards")
    finally:
        logger.removeHandler(handler)
    assert [record.getMessage() for record in said] == ["and speaks again afterwards"]
