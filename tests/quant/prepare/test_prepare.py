"""A model that obeys its policy: compared with the same network computed by hand."""

from __future__ import annotations

import copy
import importlib
import pickle
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers.zoo import noise
from torch import Tensor, nn

import hessrank
from hessrank.errors import DataError, HessrankError, ModelError, UnknownNameError
from hessrank.quant.policy import Policy
from hessrank.quant.prepare import QuantizedModel, prepare


class Small(nn.Module):
    """Convolution, batch norm, activation, skip, concatenation, reused module, linear."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(4)
        self.act = nn.LeakyReLU(0.2, inplace=True)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.fc = nn.Linear(8 * 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.bn1(self.conv1(x)))
        z = self.act(self.conv2(y) + y)
        w = torch.cat([self.pool(z), self.pool(y)], 1)
        out: Tensor = self.fc(w.flatten(1))
        return out


class Shared(nn.Module):
    """One linear layer called three times."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.act = nn.Linear(4, 4), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            x = self.act(self.linear(x))
        return x


DATA = noise(8, 1, 4, 4, seed=1)


def small(training: bool = False) -> Small:
    torch.manual_seed(0)
    model = Small()
    model.bn1.running_mean.copy_(noise(4, seed=2))
    model.bn1.running_var.copy_(noise(4, seed=3).square() + 0.5)
    return model.train(training)


def policy(bits: int = 4, layers: dict[str, Any] | None = None, **more: Any) -> Policy:
    scheme = {"bit": bits, "symmetry": False, "pot_scale": False}
    return Policy.of(
        {
            "extra_qconfig_dict": {
                "w_qscheme": scheme | {"per_channel": True},
                "a_qscheme": scheme | {"per_channel": False},
            },
            "extra_quantizer_dict": {"special_layer": layers or {}, **more},
        }
    )


def rounded(value: Tensor, low: float, high: float, bits: int) -> Tensor:
    """Round per tensor, affine, over a range, by the formula itself."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / (2**bits - 1)
    zero = round(-low / scale)
    return (torch.clamp(torch.round(value / scale) + zero, 0, 2**bits - 1) - zero) * scale


def rounded_rows(weight: Tensor, bits: int) -> Tensor:
    return torch.stack([rounded(row, float(row.min()), float(row.max()), bits) for row in weight])


def test_a_small_network_computes_what_the_formula_says() -> None:
    """All at 4 bits; conv2 and the input at 8. One grid for the concatenation and what flows into it."""
    model = small()
    ours = prepare(
        model,
        policy(layers={"input_layer": 8, "conv2": {"weight": "8 per_channel_affine"}}),
        DATA,
    )
    with torch.no_grad():
        floats = [DATA]
        y = F.leaky_relu(model.bn1(model.conv1(DATA)), 0.2)
        conv2 = model.conv2(y)
        z = F.leaky_relu(conv2 + y, 0.2)
        out = model(DATA)
        joined = torch.cat([z, y]), 4  # the grid that z and y share

        def on_grid(value: Tensor, like: Tensor, bits: int) -> Tensor:
            return rounded(value, float(like.min()), float(like.max()), bits)

        x = on_grid(DATA, DATA, 8)
        factor = model.bn1.weight / torch.sqrt(model.bn1.running_var + model.bn1.eps)
        weight = rounded_rows(model.conv1.weight * factor.reshape(-1, 1, 1, 1), 4)
        bias = model.bn1.bias + (model.conv1.bias - model.bn1.running_mean) * factor
        qy = on_grid(F.leaky_relu(F.conv2d(x, weight, bias, padding=1), 0.2), *joined)
        qc = F.conv2d(qy, rounded_rows(model.conv2.weight, 8), model.conv2.bias, padding=1)
        qc = on_grid(qc, conv2, 4)
        qz = on_grid(F.leaky_relu(qc + qy, 0.2), *joined)
        flat = torch.cat([F.max_pool2d(qz, 2), F.max_pool2d(qy, 2)], 1).flatten(1)
        expected = on_grid(F.linear(flat, rounded_rows(model.fc.weight, 4), model.fc.bias), out, 4)
    assert floats
    torch.testing.assert_close(ours(DATA), expected, rtol=1e-5, atol=1e-5)


def test_the_table_says_what_was_inserted_where() -> None:
    ours = prepare(small(), policy(layers={"conv2": {"weight": "8 per_channel_symmetric"}}), DATA)
    rows = {(row["layer"], row["tensor"]): row for row in ours.table().to_dict("records")}
    assert list(rows) == [
        ("x", "input"),
        ("conv1", "weight"),
        ("act", "activation"),
        ("conv2", "weight"),
        ("conv2", "activation"),
        ("act_dup1", "activation"),
        ("fc", "weight"),
        ("fc", "activation"),
    ]
    assert rows["conv2", "weight"]["bits"] == 8
    assert rows["conv2", "weight"]["scheme"] == "per_channel_symmetric"
    assert rows["fc", "activation"]["bits"] == 4
    printed = str(ours)
    for word in ("act_dup1", "per_channel_symmetric", "minmax", "fixed", "8 tensors quantized"):
        assert word in printed


def test_a_layer_inside_a_kernel_is_quantized_when_the_policy_names_it() -> None:
    ours = prepare(small(), policy(layers={"conv1": {"activation": "10 per_tensor_affine"}}), DATA)
    rows = {(row["layer"], row["tensor"]): row["bits"] for row in ours.table().to_dict("records")}
    assert rows["conv1", "activation"] == 10
    assert rows["act", "activation"] == 4
    assert "bn1" in ours.layer_nodes
    x = DATA[:1]
    assert ours(x).shape == (1, 3)


def test_a_reused_module_keeps_one_weight_and_has_a_quantizer_per_call() -> None:
    torch.manual_seed(0)
    ours = prepare(Shared(), policy(8), noise(4, 4, seed=2))
    assert sum(p.numel() for p in ours.parameters()) == 20
    calls = [one for one in ours.inserted if one.tensor == "activation"]
    assert [one.layer for one in calls] == ["act", "act_dup1", "act_dup2"]
    assert len({one.quantizer for one in calls}) == 3
    (weight,) = [one for one in ours.inserted if one.tensor == "weight"]
    assert "shared by linear, linear_dup1, linear_dup2" in weight.reason


def test_one_weight_in_two_modules_stays_one_and_has_one_quantizer() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.out = nn.Embedding(6, 4), nn.Linear(4, 6, bias=False)
            self.out.weight = self.embed.weight

        def forward(self, rows: Tensor) -> Tensor:
            y: Tensor = self.out(self.embed(rows))
            return y

    ours = prepare(Tied(), policy(8), torch.arange(6).reshape(3, 2))
    assert ours.get_parameter("embed.weight") is ours.get_parameter("out.weight")
    assert ours.embed.weight_quantizer is ours.out.weight_quantizer


def test_off_the_model_is_the_float_model() -> None:
    model = small()
    ours = prepare(model, policy(4), DATA)
    ours.set_quantizing(False)
    torch.testing.assert_close(ours(DATA), model(DATA), rtol=1e-5, atol=1e-5)
    ours.set_quantizing(True)
    assert not torch.allclose(ours(DATA), model(DATA), atol=1e-3)


def test_many_bits_are_almost_float() -> None:
    model = small()
    torch.testing.assert_close(prepare(model, policy(16), DATA)(DATA), model(DATA), rtol=2e-3, atol=2e-3)


def test_it_trains() -> None:
    model = small(training=True)
    ours = prepare(model, policy(4), DATA)
    assert ours.training
    target = torch.arange(8) % 3
    optimizer = torch.optim.Adam(ours.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = F.cross_entropy(ours(DATA), target)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in ours.parameters())


def test_every_parameter_has_the_gradient_of_the_float_model_when_off() -> None:
    model = small(training=True)
    ours = prepare(model, policy(4), DATA)
    ours.set_quantizing(False)
    F.cross_entropy(ours(DATA), torch.arange(8) % 3).backward()
    F.cross_entropy(model(DATA), torch.arange(8) % 3).backward()
    for name, parameter in model.named_parameters():
        ours_name = name.replace("bn1.", "conv1.batch_norm.")
        torch.testing.assert_close(ours.get_parameter(ours_name).grad, parameter.grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("method", ["fixed", "lsq", "lsq+", "dsq", "pact", "dorefa"])
def test_every_method_trains_on_the_same_graph(method: str) -> None:
    made = policy(4).model_dump()
    made["extra_qconfig_dict"] |= {"w_fakequantize": method, "a_fakequantize": method}
    ours = prepare(small(training=True), Policy.of(made), DATA)
    fixed = prepare(small(training=True), policy(4), DATA)
    assert [str(n) for n in ours.graph.nodes] == [str(n) for n in fixed.graph.nodes]
    F.cross_entropy(ours(DATA), torch.arange(8) % 3).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in ours.parameters())


def test_frozen_batch_norms_stay_frozen() -> None:
    ours = prepare(small(), policy(8), DATA, freeze_bn=True).train()
    before = ours.conv1.batch_norm.running_mean.clone()
    ours(DATA)
    assert torch.equal(ours.conv1.batch_norm.running_mean, before)
    assert copy.deepcopy(ours).train().conv1.batch_norm.training is False
    loose = prepare(small(), policy(8), DATA).train()
    loose(DATA)
    assert not torch.equal(loose.conv1.batch_norm.running_mean, before)


def test_copies_and_state_dicts_carry_everything(tmp_path: Any) -> None:
    ours = prepare(small(), policy(4), DATA)
    twin = copy.deepcopy(ours)
    assert isinstance(twin, QuantizedModel)
    assert twin.inserted == ours.inserted
    assert torch.equal(twin(DATA), ours(DATA))
    torch.save(ours.state_dict(), tmp_path / "state.pth")
    other = prepare(small(), policy(4), 3 * DATA)
    assert not torch.equal(other(DATA), ours(DATA))
    other.load_state_dict(torch.load(tmp_path / "state.pth", weights_only=True))
    assert torch.equal(other(DATA), ours(DATA))


def test_a_pickled_model_comes_back_as_what_it_was() -> None:
    ours = prepare(small(training=True), policy(4), DATA, freeze_bn=True)
    other = pickle.loads(pickle.dumps(ours))
    assert isinstance(other, QuantizedModel)
    assert str(other) == str(ours)
    assert [str(node) for node in other.graph.nodes] == [str(node) for node in ours.graph.nodes]
    assert [module.training for module in other.modules()] == [module.training for module in ours.modules()]
    assert torch.equal(other(DATA), ours(DATA))


def test_a_model_that_keeps_activations_of_its_last_run_is_copied_without_them() -> None:
    class Keeps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            self.last: Tensor = self.linear(x)
            return self.last

    model, x = Keeps(), noise(4, 4, seed=1)
    kept = model(x)
    ours = prepare(model, policy(16), x)
    torch.testing.assert_close(ours(x), kept, rtol=1e-3, atol=1e-3)
    assert kept.grad_fn is not None


def test_a_state_of_other_bits_is_refused() -> None:
    with pytest.raises(HessrankError, match="8"):
        prepare(small(), policy(4), DATA).load_state_dict(prepare(small(), policy(8), DATA).state_dict())


def test_the_users_model_is_left_as_it_was() -> None:
    model = small(training=True)
    before = copy.deepcopy(model.state_dict())
    classes = {name: type(module) for name, module in model.named_modules()}
    prepare(model, policy(4), DATA)
    assert model.training
    assert {name: type(module) for name, module in model.named_modules()} == classes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_what_stays_in_float_is_listed_with_the_reason() -> None:
    ours = prepare(small(), policy(8, exclude_module_name=["fc"]), DATA)
    assert ours.unquantized["activation of fc"] == "the policy excludes it"
    assert ours.unquantized["weight of fc"] == "the policy excludes it"
    assert ours.unquantized["activation of conv1"] == "computed in one kernel with act"
    assert not any(one.layer == "fc" for one in ours.inserted)
    assert "activation of fc: the policy excludes it" in str(ours)
    assert "computed in one kernel" not in str(ours)


def test_an_entry_that_does_nothing_is_a_warning() -> None:
    ours = prepare(small(), policy(8, {"act": {"weight": 10, "activation": 10}}), DATA)
    (warning,) = ours.warnings
    assert warning in str(ours)
    assert "the weight of 'act' does nothing" in warning


def test_tuples_are_quantized_too() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            left, right = self.a(x).chunk(2, -1)
            return left, {"right": self.b(torch.cat([right, left], -1))}

    ours = prepare(Two(), policy(4), noise(6, 4, seed=3))
    left, rest = ours(noise(6, 4, seed=3))
    assert len(left.unique()) <= 16
    assert len(rest["right"].unique()) <= 16


def test_a_network_that_torch_nn_hides_keeps_its_inside_in_float() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.TransformerEncoderLayer(4, 1, 8, batch_first=True), nn.Linear(4, 2))
    ours = prepare(model, policy(8), noise(2, 3, 4, seed=4))
    assert "weight of 1.linear1" in ours.unquantized
    assert [one.layer for one in ours.inserted if one.tensor != "weight"] == ["input_1", "0", "1.norm2", "2"]


def nan_in(data: Tensor) -> Tensor:
    data = data.clone()
    data[3, 0, 0, 0] = float("nan")
    return data


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"calibration_data": DATA[:0]}, DataError, "one sample at least"),
        ({"calibration_data": nan_in(DATA)}, DataError, "sample 3 of the data holds NaN"),
        ({"calibration_data": noise(4, 2, 4, 4, seed=1)}, DataError, "does not take this input"),
        ({"policy": policy(4, {"conv9": {"weight": 4}})}, HessrankError, "no layer named 'conv9'; nearest is 'conv"),
        ({"policy": "nowhere.yaml"}, HessrankError, "nowhere.yaml.*there is no such file"),
        ({"backend": "mqbensh"}, UnknownNameError, "nearest is 'mqbench'"),
        ({"batch_size": 0}, HessrankError, "batch_size is 0: it should be 1 or more"),
        ({"policy": {}}, HessrankError, "a dict is no policy"),
        ({"model": "model.pth"}, ModelError, "a str cannot be quantized: give the torch.nn.Module"),
        ({"model": nn.Sequential(nn.LazyLinear(2))}, ModelError, "lazy layers"),
        ({"model": prepare(small(), policy(4), DATA)}, ModelError, "quantized already"),
        (
            {"policy": policy(4, {"act": {"activation": 4}, "act_dup1": {"activation": 8}})},
            HessrankError,
            "share one",
        ),
    ],
    ids=[
        *(
            "empty",
            "nan",
            "shape",
            "other-model",
            "no-file",
            "backend",
            "batch-size",
            "no-policy",
            "no-model",
            "lazy",
        ),
        *("prepared", "contradiction"),
    ],
)
def test_bad_input_is_one_line(arguments: dict[str, Any], error: type[Exception], says: str) -> None:
    given = {"model": small(), "policy": policy(4), "calibration_data": DATA} | arguments
    with pytest.raises(error, match=says) as caught:
        prepare(**given)
    assert "\n" not in str(caught.value)


def test_an_activation_that_overflows_is_named() -> None:
    class Overflow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return torch.exp(self.linear(x) * 1e6) - 1

    with pytest.raises(ModelError, match="layer 'exp'"):
        prepare(Overflow(), policy(8), noise(2, 4, seed=1))


def test_it_is_a_name_of_the_front_door() -> None:
    assert hessrank.prepare is prepare


def test_the_other_backend_gets_data_that_nobody_has_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A generator can be read once only."""
    seen: list[Tensor] = []
    backend = importlib.import_module("hessrank.quant.prepare.mqbench.prepare_mqbench")
    monkeypatch.setattr(backend, "prepare_mqbench", lambda model, policy, data, **_: seen.extend(data))
    prepare(small(), policy(), (batch for batch in DATA.split(2)), backend="mqbench")
    assert len(seen) == 4
