"""Channels of tiny weights beside a bias: onnxruntime as it comes computes what the prepared model does."""

import json

import pytest
import torch
from torch import nn

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from hessrank.quant.export import ExportError, export_onnx, write_scales  # noqa: E402
from hessrank.quant.policy import Policy  # noqa: E402
from hessrank.quant.prepare import QuantizedModel, prepare  # noqa: E402


def policy(
    tmp_path, bits: int, *, symmetric: bool = False, per_channel: bool = True, method: str = "fixed"
) -> Policy:
    path = tmp_path / "policy.yaml"
    path.write_text(
        "extra_qconfig_dict:\n"
        f"  w_qscheme: {{bit: {bits}, symmetry: {symmetric}, per_channel: {per_channel}, pot_scale: false}}\n"
        f"  a_qscheme: {{bit: {bits}, symmetry: false, per_channel: false, pot_scale: false}}\n"
        f"  w_fakequantize: {method}\n"
    )
    return Policy.read(path)


def nets() -> dict[str, tuple[nn.Module, torch.Tensor]]:
    """Networks whose module '2' has tiny weights beside a bias that is not small."""
    torch.manual_seed(0)
    images = torch.randn(4, 3, 7, 7)
    dead = nn.BatchNorm2d(5)
    made = {
        "depthwise": (nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=4)), images),
        "conv3d": (nn.Sequential(nn.Conv3d(3, 4, 2), nn.ReLU(), nn.Conv3d(4, 5, 2)), torch.randn(4, 3, 4, 4, 4)),
        "linear": (nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5)), torch.randn(16, 6)),
        "tokens": (nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5)), torch.randn(4, 3, 6)),
        "transposed": (nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.ConvTranspose2d(4, 6, 2)), images),
        "folded": (nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3, bias=False), dead), images),
    }
    with torch.no_grad():
        for name, (model, _) in made.items():
            (dead.weight if name == "folded" else model[2].weight).mul_(1e-9)
            (dead.bias if name == "folded" else model[2].bias).uniform_(-2, 2)
    return {name: (model.eval(), x) for name, (model, x) in made.items()}


def off(prepared: QuantizedModel, path, x: torch.Tensor) -> float:
    """Return how far onnxruntime, all its optimizations on, is from the model: as a share of the output's range."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found = torch.as_tensor(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])
    with torch.no_grad():
        expected = prepared(x)
    return float((found - expected).abs().max() / (expected.max() - expected.min()))


@pytest.mark.parametrize("name", nets())
@pytest.mark.parametrize("scheme", [{"bits": 8}, {"bits": 7, "symmetric": True, "per_channel": False}], ids=str)
def test_a_runtime_that_rounds_biases_to_int32_is_right(name, scheme, tmp_path) -> None:
    model, x = nets()[name]
    prepared = prepare(model, policy(tmp_path, **scheme), x)
    report = export_onnx(prepared, tmp_path / "model.onnx", x, dynamic=False)
    assert report.largest_difference <= 1.001
    assert off(prepared, tmp_path / "model.onnx", x) < 0.02
    assert not any("coarser" in note for note in report.notes)


def trained(tmp_path) -> tuple[QuantizedModel, torch.Tensor]:
    """A network whose learned steps have shrunk until two biases no longer fit."""
    model, x = nets()["linear"]
    with torch.no_grad():
        model[2].weight.mul_(1e9)
    prepared = prepare(model, policy(tmp_path, 8, method="lsq"), x)
    with torch.no_grad():
        prepared.get_submodule("2").weight_quantizer.log_gain[[1, 3]] = -20.0
    return prepared, x


def test_a_step_that_training_shrank_is_raised_and_named(tmp_path) -> None:
    prepared, x = trained(tmp_path)
    report = export_onnx(prepared, tmp_path / "model.onnx", x, dynamic=False)
    assert [note for note in report.notes if "coarser" in note] == [
        "weight of '2', channels 1, 3: stored with a coarser step than it was trained with, since the bias beside it "
        "would not fit into 32 bits"
    ]
    assert report.largest_difference <= 1.001
    assert off(prepared, tmp_path / "model.onnx", x) < 0.02


def test_scales_are_those_of_the_file(tmp_path) -> None:
    prepared, x = trained(tmp_path)
    export_onnx(prepared, tmp_path / "model.onnx", x, dynamic=False)
    write_scales(prepared, tmp_path / "scales.json")
    row = next(r for r in json.loads((tmp_path / "scales.json").read_text())["tensors"] if r["layer"] == "2")
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(tmp_path / "model.onnx").graph.initializer}
    assert row["scale"] == stored["2.quantized.scale"].tolist()


def test_weights_stretched_by_dorefa_are_stored_as_they_are(tmp_path) -> None:
    model, x = nets()["linear"]
    prepared = prepare(model, policy(tmp_path, 8, method="dorefa"), x)
    report = export_onnx(prepared, tmp_path / "model.onnx", x, dynamic=False)
    assert off(prepared, tmp_path / "model.onnx", x) < 0.02
    assert any("coarser" in note for note in report.notes)


def test_a_bias_that_fits_no_int32_is_named(tmp_path) -> None:
    model, x = nets()["linear"]
    prepared = prepare(model, policy(tmp_path, 8), x)
    with torch.no_grad():
        prepared.get_submodule("2").bias[3] = float("inf")
    with pytest.raises(ExportError, match=r"^layer '2', channel 3: its bias inf has no int32"):
        export_onnx(prepared, tmp_path / "model.onnx", x)
