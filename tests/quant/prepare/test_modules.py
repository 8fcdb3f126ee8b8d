"""Quantized weights and folded batch norms, against the formulas written out."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from helpers.zoo import noise
from torch import Tensor, nn

from hessrank.analysis.rounding.quantize import quantize_weight
from hessrank.network.weights import channel_axis
from hessrank.quant.prepare.modules import QUANTIZED, QuantizedWeight, quantize_module
from hessrank.quant.quantizers import make_quantizer
from hessrank.quant.scheme import Scheme

MODULES = {
    "Conv1d": (lambda: nn.Conv1d(4, 6, 3, stride=2, padding=1, groups=2), (2, 4, 9)),
    "Conv2d": (lambda: nn.Conv2d(3, 4, 3, padding=1, bias=False, padding_mode="reflect"), (2, 3, 6, 6)),
    "Conv3d": (lambda: nn.Conv3d(2, 3, 2), (2, 2, 4, 4, 4)),
    "ConvTranspose1d": (lambda: nn.ConvTranspose1d(3, 4, 2, stride=2), (2, 3, 5)),
    "ConvTranspose2d": (lambda: nn.ConvTranspose2d(3, 4, 3, stride=2, output_padding=1), (2, 3, 4, 4)),
    "ConvTranspose3d": (lambda: nn.ConvTranspose3d(2, 3, 2), (2, 2, 3, 3, 3)),
    "ConvTranspose1d, groups": (lambda: nn.ConvTranspose1d(4, 6, 3, stride=2, groups=2), (2, 4, 5)),
    "ConvTranspose1d, depthwise": (lambda: nn.ConvTranspose1d(4, 4, 3, stride=2, groups=4, bias=False), (2, 4, 5)),
    "ConvTranspose2d, groups": (lambda: nn.ConvTranspose2d(6, 9, 2, groups=3, bias=False), (2, 6, 4, 4)),
    "ConvTranspose2d, depthwise": (lambda: nn.ConvTranspose2d(4, 4, 3, stride=2, groups=4), (2, 4, 4, 4)),
    "ConvTranspose2d, doubling": (lambda: nn.ConvTranspose2d(4, 8, 2, groups=4), (2, 4, 4, 4)),
    "ConvTranspose3d, groups": (lambda: nn.ConvTranspose3d(4, 2, 2, groups=2), (2, 4, 3, 3, 3)),
    "ConvTranspose3d, depthwise": (lambda: nn.ConvTranspose3d(3, 3, 2, groups=3), (2, 3, 3, 3, 3)),
    "Linear": (lambda: nn.Linear(5, 4), (3, 5)),
}
BATCH_NORMS = {3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d, 2: nn.BatchNorm1d}


def made(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    make, shape = MODULES[name]
    return make().double(), noise(*shape, seed=1, dtype=torch.float64)


def quantized(
    module: nn.Module, norm: nn.Module | None = None, bits: int = 4, *, per_channel: bool = True
) -> QuantizedWeight:
    axis = channel_axis(module) if per_channel else None
    channels = None if axis is None else module.weight.shape[axis]
    scheme = Scheme(bits, per_channel=per_channel)
    quantizer = make_quantizer("fixed", scheme, observer="minmax", axis=axis, channels=channels, weight=True)
    result = quantize_module(copy.deepcopy(module), quantizer, copy.deepcopy(norm))  # type: ignore[arg-type]
    result.observe_weight()
    quantizer.calibrated()
    return result


def a_batch_norm(channels: int, dimensions: int) -> nn.Module:
    """A batch norm with statistics and parameters that are not trivial, one γ negative."""
    norm = BATCH_NORMS[dimensions](channels).double()
    norm.running_mean.copy_(noise(channels, seed=2, dtype=torch.float64))
    norm.running_var.copy_(noise(channels, seed=3, dtype=torch.float64).square() + 0.1)
    with torch.no_grad():
        norm.weight.copy_(noise(channels, seed=4, dtype=torch.float64) + 0.5)
        norm.weight[0] = -0.7
        norm.bias.copy_(noise(channels, seed=5, dtype=torch.float64))
    return norm


@pytest.mark.parametrize("name", MODULES)
def test_off_it_computes_what_the_module_does(name: str) -> None:
    module, x = made(name)
    assert torch.equal(quantized(module)(x), module(x))


@pytest.mark.parametrize("name", MODULES)
def test_on_it_computes_with_the_weight_on_the_grid(name: str) -> None:
    module, x = made(name)
    ours = quantized(module)
    ours.weight_quantizer.enabled = True
    expected = copy.deepcopy(module)
    expected.weight.data = ours.weight_quantizer.fake_quantize(module.weight.detach())
    assert torch.equal(ours(x), expected(x))
    assert not torch.equal(ours(x), module(x))


@pytest.mark.parametrize("name", MODULES)
def test_folded_and_off_it_is_the_module_and_its_batch_norm(name: str) -> None:
    """In evaluation, and in training too: same output, same gradients, same running statistics."""
    module, x = made(name)
    norm = a_batch_norm(module(x).shape[1], x.ndim)
    for training in (False, True):
        ours, reference = quantized(module, norm), nn.Sequential(copy.deepcopy(module), copy.deepcopy(norm))
        ours.train(training)
        reference.train(training)
        result, expected = ours(x), reference(x)
        torch.testing.assert_close(result, expected, rtol=1e-10, atol=1e-10)
        weights = noise(*result.shape, seed=6, dtype=torch.float64)
        (result * weights).sum().backward()
        (expected * weights).sum().backward()
        torch.testing.assert_close(ours.weight.grad, reference[0].weight.grad, rtol=1e-8, atol=1e-9)
        torch.testing.assert_close(ours.batch_norm.weight.grad, reference[1].weight.grad, rtol=1e-8, atol=1e-9)
        torch.testing.assert_close(ours.batch_norm.running_var, reference[1].running_var)


def by_output_channel(module: nn.Module, vector: Tensor) -> Tensor:
    """What each entry of a weight belongs to, found by brute force: which outputs a single entry reaches."""
    shape = (1, module.in_features) if isinstance(module, nn.Linear) else (1, module.in_channels, *[4] * 3)
    x = torch.ones(shape[: module.weight.ndim], dtype=torch.float64)
    found = torch.empty_like(module.weight)
    alone = copy.deepcopy(module)
    alone.bias = None
    for place in np.ndindex(*module.weight.shape):
        alone.weight.data.zero_()[place] = 1
        reached = alone(x).abs().sum([d for d in range(x.ndim) if d != 1]).nonzero()
        found[place] = vector[reached.item()]
    return found.detach()


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("name", MODULES)
def test_folded_and_on_evaluation_is_the_formula(name: str, per_channel: bool) -> None:
    """y = conv(x, Q(w·f)) + β + (b − μ)·f with f = γ/√(σ² + ε)."""
    module, x = made(name)
    norm = a_batch_norm(module(x).shape[1], x.ndim)
    ours = quantized(module, norm, per_channel=per_channel).eval()
    ours.weight_quantizer.enabled = True
    factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    plain = copy.deepcopy(module)
    folded = (module.weight * by_output_channel(module, factor)).detach()
    plain.weight.data = ours.weight_quantizer.fake_quantize(folded)
    bias = 0.0 if module.bias is None else module.bias
    plain.bias = nn.Parameter((norm.bias + (bias - norm.running_mean) * factor).detach())
    torch.testing.assert_close(ours(x), plain(x), rtol=1e-12, atol=1e-12)
    assert not torch.allclose(ours(x), nn.Sequential(module, norm).eval()(x), rtol=1e-3)


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("name", MODULES)
def test_folded_and_on_training_with_running_statistics_equals_evaluation(name: str, per_channel: bool) -> None:
    """Where the batch's statistics are the running ones, both formulas give the same."""
    module, x = made(name)
    norm = a_batch_norm(module(x).shape[1], x.ndim)
    ours = quantized(module, norm, per_channel=per_channel)
    ours.weight_quantizer.enabled = True
    y = ours.eval()(x)
    axes = [axis for axis in range(y.ndim) if axis != 1]
    training = quantized(module, norm, per_channel=per_channel)
    training.weight_quantizer.enabled = True
    factor = (norm.weight / torch.sqrt(norm.running_var + norm.eps)).detach()
    shape = [1, -1, *[1] * (y.ndim - 2)]
    normalized = training.train()(x)
    raw = (y - norm.bias.reshape(shape)) / factor.reshape(shape) + norm.running_mean.reshape(shape)
    mean, var = raw.mean(axes, keepdim=True), raw.var(axes, unbiased=False, keepdim=True)
    expected = (raw - mean) / torch.sqrt(var + norm.eps) * norm.weight.reshape(shape) + norm.bias.reshape(shape)
    torch.testing.assert_close(normalized, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", MODULES)
def test_a_ranking_rounds_a_weight_as_a_prepared_module_does(name: str) -> None:
    module, _ = made(name)
    module.float()
    ours = quantized(module)
    expected = ours.weight_quantizer.fake_quantize(module.weight.detach())
    assert torch.equal(quantize_weight(module.weight, channel_axis(module), 4), expected)


def test_channels_of_transposed_convolutions_with_groups() -> None:
    """A scale for each output of a group, shared by the groups; depthwise, a scale for each channel."""
    scales = {name: quantized(made(name)[0]).weight_quantizer.scale.numel() for name in MODULES}
    assert scales["ConvTranspose1d, groups"] == scales["ConvTranspose2d, groups"] == 3
    assert scales["ConvTranspose3d, groups"] == 1
    assert [scales[f"ConvTranspose{n}d, depthwise"] for n in (1, 2, 3)] == [4, 4, 3]
    assert scales["ConvTranspose2d, doubling"] == 4


@pytest.mark.parametrize("name", MODULES)
def test_a_frozen_batch_norm_is_computed_as_in_evaluation(name: str) -> None:
    module, x = made(name)
    ours = quantized(module, a_batch_norm(module(x).shape[1], x.ndim)).train()
    ours.weight_quantizer.enabled = True
    ours.batch_norm.eval()
    assert torch.equal(ours(x), ours.eval()(x))


def test_a_channel_that_its_batch_norm_switches_off_trains_without_nan() -> None:
    module, x = made("Conv2d")
    norm = a_batch_norm(4, 4)
    norm.weight.data[1] = 0
    ours, reference = quantized(module, norm), nn.Sequential(copy.deepcopy(module), copy.deepcopy(norm))
    torch.testing.assert_close(ours.train()(x), reference.train()(x))
    torch.testing.assert_close(quantized(module, norm).eval()(x), nn.Sequential(module, norm).eval()(x))


def test_an_embedding_looks_up_rounded_rows() -> None:
    torch.manual_seed(0)
    module = nn.Embedding(10, 4, padding_idx=0)
    ours = quantized(module)
    ours.weight_quantizer.enabled = True
    rows = torch.tensor([[1, 2], [0, 9]])
    expected = ours.weight_quantizer.fake_quantize(module.weight.detach())[rows]
    assert torch.equal(ours(rows), expected)


def test_parameters_and_keys_stay_where_they_were() -> None:
    module, _ = made("Conv1d")
    ours = quantized(module)
    assert {"weight", "bias"} <= set(ours.state_dict())
    assert isinstance(ours, nn.Conv1d)


def test_a_copy_is_a_copy() -> None:
    module, x = made("Conv2d")
    ours = quantized(module, a_batch_norm(4, 4))
    other = copy.deepcopy(ours)
    other.weight.data.zero_()
    assert not torch.equal(ours(x), other(x))


def test_every_kind_is_covered() -> None:
    assert {kind.__name__ for kind in QUANTIZED} == {*(name.partition(",")[0] for name in MODULES), "Embedding"}
