"""Saturating pairs of products against the instruction's definition, one number at a time."""

import itertools

import pytest
import torch
from torch import nn

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from hessrank.quant.export.capture import capture
from hessrank.quant.export.check import saturation
from hessrank.quant.export.check.saturation import with_saturation
from hessrank.quant.export.check.steps import outputs_of
from hessrank.quant.export.convert import exportable, reference
from hessrank.quant.export.onnx_model import OnnxModel, to_onnx
from hessrank.quant.export.sizes import named_inputs
from hessrank.quant.prepare import QuantizedModel

IMAGES = torch.rand(2, 6, 5, 4, generator=torch.Generator().manual_seed(1)) - 0.1
SOUNDS = torch.rand(2, 3, 7, generator=torch.Generator().manual_seed(2))
ROWS = torch.rand(3, 9, generator=torch.Generator().manual_seed(3))


def exported(model: QuantizedModel, inputs: torch.Tensor) -> OnnxModel:
    given = named_inputs(model, inputs)
    return to_onnx(capture(exportable(model), given, []), list(given), list(outputs_of(model)))


def vpmaddubsw(a: list[int], b: list[int]) -> int:
    """Multiply unsigned with signed bytes and add neighboring products with saturation; then add the results."""
    products = [x * w for x, w in itertools.zip_longest(a, b, fillvalue=0)]
    pairs = itertools.zip_longest(products[::2], products[1::2], fillvalue=0)
    return sum(max(-32768, min(32767, first + second)) for first, second in pairs)


def by_hand(model: QuantizedModel, x: torch.Tensor) -> torch.Tensor:
    """Return what module '0' gives, from bytes, with its bias: every sum of pairs by itself."""
    module, grid = model.get_submodule("0"), dict(model.quantizers_by_path())["quantizers.input_1"].grid()
    scale, zero_point = float(grid.scale), int(grid.zero_point)
    steps = module.weight_quantizer.grid().scale
    weight = (module.weight.detach() / steps.reshape([-1] + [1] * (module.weight.ndim - 1))).round()
    rows = weight.movedim(1, -1).flatten(1).long()
    bytes_ = (x / scale).round().clamp(-zero_point, 255 - zero_point) + zero_point
    exact = module(((bytes_ - zero_point) * scale).float())
    for at in itertools.product(*(range(size) for size in exact.shape)):
        seen = window(module, bytes_, zero_point, at)
        integers, bytes_here = rows[at[1]].tolist(), seen.long().tolist()
        gained = vpmaddubsw(bytes_here, integers) - sum(a * b for a, b in zip(bytes_here, integers, strict=True))
        exact[at] += gained * scale * float(steps[at[1]])
    return exact


def window(module: nn.Module, x: torch.Tensor, zero_point: int, at: tuple[int, ...]) -> torch.Tensor:
    """Return the bytes that one number of the result is made of: kernel positions outside, channels inside."""
    if isinstance(module, nn.Linear):
        return x[at[0]]
    padded = nn.functional.pad(x, [side for p in reversed(module.padding) for side in (p, p)], value=zero_point)
    spans = zip(at[2:], module.stride, module.kernel_size, module.dilation, strict=True)
    where = tuple(slice(i * stride, i * stride + (k - 1) * d + 1, d) for i, stride, k, d in spans)
    size = module.in_channels // module.groups
    group = at[1] // (module.out_channels // module.groups)
    return padded[at[0], group * size : (group + 1) * size][(slice(None), *where)].movedim(0, -1).flatten()


@pytest.mark.parametrize(
    ("make", "x"),
    [
        pytest.param(lambda: nn.Conv2d(6, 4, 3, padding=1, stride=2), IMAGES, id="conv2d"),
        pytest.param(lambda: nn.Conv2d(6, 4, (2, 1), groups=2, dilation=(2, 1)), IMAGES, id="groups of odd size"),
        pytest.param(lambda: nn.Conv1d(3, 4, 3, padding=1), SOUNDS, id="conv1d"),
        pytest.param(lambda: nn.Linear(9, 4), ROWS, id="linear"),
    ],
)
def test_pairs_saturate_as_the_instruction_does(make, x, quantize) -> None:
    torch.manual_seed(0)
    layer = make()
    with torch.no_grad():
        layer.weight.abs_()
    model = reference(quantize(nn.Sequential(layer), x, "8 per_channel_symmetric", "8 affine"))
    emulated = with_saturation(model, exported(model, x))
    assert emulated is not None
    found: list[torch.Tensor] = []
    emulated.get_submodule("0").register_forward_hook(lambda _module, _args, result: found.append(result))
    with torch.no_grad():
        model.get_submodule("0").weight.copy_(values_on_grid(model))
        expected = by_hand(model, x)
        plain = model(x)
        assert (emulated(x) - plain).abs().max() > 5 * step_of_output(model)
    torch.testing.assert_close(found[0], expected, rtol=1e-4, atol=1e-5)


def test_of_a_large_result_every_so_many_rows_are_computed(quantize, monkeypatch) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(6, 4, 3, padding=1)
    with torch.no_grad():
        layer.weight.abs_()
    model = reference(quantize(nn.Sequential(layer), IMAGES, "8 per_channel_symmetric", "8 affine"))
    found: list[torch.Tensor] = []
    for largest in (1 << 24, IMAGES.shape[0] * 6 * 5 * 4 * 9 // 2):
        monkeypatch.setattr(saturation, "LARGEST", largest)
        emulated = with_saturation(model, exported(model, IMAGES))
        assert emulated is not None
        emulated.get_submodule("0").register_forward_hook(lambda _module, _args, result: found.append(result))
        with torch.no_grad():
            emulated(IMAGES)
    whole, part = found
    torch.testing.assert_close(part[:, :, ::2], whole[:, :, ::2])
    assert (part[:, :, 1::2] - whole[:, :, 1::2]).abs().max() > 5 * step_of_output(model)


def values_on_grid(model: QuantizedModel) -> torch.Tensor:
    module = model.get_submodule("0")
    return module.weight_quantizer(module.weight)


def step_of_output(model: QuantizedModel) -> float:
    return float(dict(model.quantizers_by_path())[model.inserted[-1].quantizer].grid().scale)


@pytest.mark.parametrize(
    ("make", "weights", "activations"),
    [
        pytest.param(lambda: nn.Conv2d(6, 4, 3), "8 per_channel_affine", "8 affine", id="unsigned weights"),
        pytest.param(lambda: nn.Conv2d(6, 4, 3), "7 per_channel_symmetric", "8 affine", id="weights of 7 bits"),
        pytest.param(lambda: nn.Conv2d(6, 4, 3), "8 per_channel_symmetric", "10 affine", id="inputs of 10 bits"),
        pytest.param(lambda: nn.Conv2d(6, 6, 3, groups=6), "8 per_channel_symmetric", "8 affine", id="depthwise"),
        pytest.param(lambda: nn.ConvTranspose2d(6, 4, 2), "8 per_channel_symmetric", "8 affine", id="transposed"),
    ],
)
def test_what_cannot_saturate_is_left_out(make, weights, activations, quantize) -> None:
    torch.manual_seed(0)
    layer = make()
    with torch.no_grad():
        layer.weight.abs_()
    model = reference(quantize(nn.Sequential(layer), IMAGES, weights, activations))
    assert with_saturation(model, exported(model, IMAGES)) is None
