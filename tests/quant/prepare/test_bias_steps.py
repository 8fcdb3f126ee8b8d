"""No step of a weight is so fine that the bias beside it needs more than 32 bits."""

import copy

import pytest
import torch
from torch import nn

from hessrank.errors import ModelError
from hessrank.quant.policy import Policy
from hessrank.quant.prepare import prepare
from hessrank.quant.prepare.bias_steps import LARGEST_BIAS, input_steps, least_weight_steps, raise_weight_steps
from hessrank.quant.prepare.model import QuantizedModel


def policy(tmp_path, bits: int = 8, *, symmetric: bool = False, per_channel: bool = True, **keys: str) -> Policy:
    weights = {"bit": bits, "symmetry": symmetric, "per_channel": per_channel, "pot_scale": "pot_scale" in keys}
    activations = {"bit": bits, "symmetry": False, "per_channel": False, "pot_scale": False}
    method = keys.get("method", "fixed")
    path = tmp_path / "policy.yaml"
    path.write_text(
        f"extra_qconfig_dict:\n  w_qscheme: {weights}\n  a_qscheme: {activations}\n  w_fakequantize: {method}\n"
    )
    return Policy.read(path)


def nets() -> dict[str, tuple[nn.Module, torch.Tensor]]:
    """Networks whose module '2' has a channel of tiny or no weights beside a bias that is not small."""
    torch.manual_seed(0)
    images = torch.randn(4, 3, 7, 7)
    made = {
        "conv1d": (nn.Sequential(nn.Conv1d(3, 4, 3), nn.ReLU(), nn.Conv1d(4, 5, 2)), torch.randn(4, 3, 9)),
        "conv3d": (nn.Sequential(nn.Conv3d(3, 4, 2), nn.ReLU(), nn.Conv3d(4, 5, 2)), torch.randn(4, 3, 4, 4, 4)),
        "linear": (nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5)), torch.randn(16, 6)),
        "tokens": (nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5)), torch.randn(4, 3, 6)),
        "depthwise": (
            nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=4)),
            images,
        ),
        "transposed": (
            nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.ConvTranspose2d(4, 6, 2)),
            images,
        ),
    }
    for model, _ in made.values():
        with torch.no_grad():
            axis = 1 if isinstance(model[2], nn.ConvTranspose2d) else 0
            model[2].weight.select(axis, 0).mul_(1e-8)
            model[2].weight.select(axis, 1).zero_()
            model[2].bias.uniform_(1, 2)
    return {name: (model.eval(), x) for name, (model, x) in made.items()}


def bias_integers(prepared: QuantizedModel, path: str) -> torch.Tensor:
    """Return bias / (input step × weight step) of every output channel, in float64."""
    module = prepared.get_submodule(path)
    scale = module.weight_quantizer.grid().scale.double()
    bias = module.folded()[1].detach().double()
    return bias / (input_steps(prepared)[path] * scale.repeat(len(bias) // len(scale)))


@pytest.mark.parametrize("name", nets())
@pytest.mark.parametrize(
    "scheme",
    [
        {"bits": 4},
        {"bits": 8, "symmetric": True},
        {"bits": 8, "per_channel": False},
        {"bits": 10},
        {"bits": 16, "symmetric": True, "per_channel": False},
        {"bits": 8, "symmetric": True, "pot_scale": "yes"},
    ],
    ids=str,
)
def test_every_bias_fits_and_the_network_computes_the_same(name, scheme, tmp_path) -> None:
    model, x = nets()[name]
    prepared = prepare(model, policy(tmp_path, **scheme), x)
    integers = bias_integers(prepared, "2").abs()
    assert integers.max() <= LARGEST_BIAS * 1.001
    if scheme.get("per_channel", True):  # a bias of a channel without weights is rounded as finely
        assert integers[:2].min() >= LARGEST_BIAS * 0.499
    with torch.no_grad():
        float_weights = copy.deepcopy(prepared)
        float_weights.get_submodule("2").weight_quantizer.enabled = False
        moved = (prepared(x) - float_weights(x)).movedim(-1 if isinstance(model[2], nn.Linear) else 1, 0)[:2]
    assert moved.abs().max() <= 1.001 * step_of_output(prepared)


def step_of_output(prepared: QuantizedModel) -> float:
    return float(dict(prepared.quantizers_by_path())[prepared.inserted[-1].quantizer].grid().scale)


def test_a_step_is_raised_to_the_bound_exactly_and_others_stay(tmp_path) -> None:
    model, x = nets()["linear"]
    prepared = prepare(model, policy(tmp_path), x)
    scale = prepared.get_submodule("2").weight_quantizer.scale
    step = input_steps(prepared)["2"]
    bound = model[2].bias.detach().double().abs() / (step * LARGEST_BIAS)
    torch.testing.assert_close(scale[:2].double(), bound[:2], rtol=1e-6, atol=0)
    span = model[2].weight.amax(1).clamp(min=0) - model[2].weight.amin(1).clamp(max=0)
    assert torch.equal(scale[2:], (span / 255)[2:].detach())


def test_a_small_step_of_the_input_counts_too(tmp_path) -> None:
    model, x = nets()["linear"]
    with torch.no_grad():
        model[0].bias.zero_()
    prepared = prepare(model, policy(tmp_path), 1e-10 * x)
    assert bias_integers(prepared, "2").abs().max() <= LARGEST_BIAS * 1.001
    with torch.no_grad():
        assert torch.allclose(prepared(1e-10 * x), model[2].bias, atol=step_of_output(prepared))


def test_a_batch_norm_that_switches_a_channel_off_is_folded_first(tmp_path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3, bias=False), nn.BatchNorm2d(5)).eval()
    with torch.no_grad():
        model[3].weight.copy_(torch.tensor([1e-9, 0.0, 1.0, -1.0, 1e-3]))
        model[3].bias.uniform_(1, 2)
    prepared = prepare(model, policy(tmp_path), torch.randn(4, 3, 9, 9))
    assert bias_integers(prepared, "2").abs().max() <= LARGEST_BIAS * 1.001
    prepared.train()(torch.randn(4, 3, 9, 9)).square().mean().backward()


def test_a_weight_of_several_calls_takes_the_finest_input(tmp_path) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.again = nn.Linear(6, 6), nn.Linear(6, 6)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.again(self.again(self.first(x)) * 1e-6)

    torch.manual_seed(0)
    prepared = prepare(Twice().eval(), policy(tmp_path), torch.randn(8, 6))
    grids = {one.layer: dict(prepared.quantizers_by_path())[one.quantizer].grid() for one in prepared.inserted}
    assert input_steps(prepared)["again"] == float(grids["mul"].scale)
    assert float(grids["mul"].scale) < float(grids["first"].scale)


@pytest.mark.parametrize("method", ["lsq", "pact"])
def test_learned_steps_start_from_the_raised_one(method, tmp_path) -> None:
    model, x = nets()["linear"]
    prepared = prepare(model, policy(tmp_path, method=method), x)
    assert bias_integers(prepared, "2").abs().max() <= LARGEST_BIAS * 1.001


def test_weights_that_are_stretched_to_their_grid_keep_it(tmp_path) -> None:
    model, x = nets()["linear"]
    prepared = prepare(model, policy(tmp_path, method="dorefa"), x)
    quantizer = prepared.get_submodule("2").weight_quantizer
    before = quantizer.scale.clone()
    raise_weight_steps(prepared)
    assert torch.equal(quantizer.scale, before)
    assert bias_integers(prepared, "2").abs().max() > 2**31
    assert (least_weight_steps(prepared)[quantizer].raised(before, powers_of_two=False) > before)[0]


def test_a_bias_that_no_step_can_hold_is_named(tmp_path) -> None:
    model, x = nets()["linear"]
    prepared = prepare(model, policy(tmp_path), x)
    with torch.no_grad():
        prepared.get_submodule("2").bias[3] = float("nan")
    with pytest.raises(ModelError, match=r"^layer '2', channel 3: its bias nan has no int32 in units of input step"):
        least_weight_steps(prepared)


def test_a_layer_that_reads_floats_is_left_alone(tmp_path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text("extra_quantizer_dict:\n  exclude_node_name: [input_1]\n")
    model, x = nets()["linear"]
    assert "0" not in input_steps(prepare(model, path, x))
