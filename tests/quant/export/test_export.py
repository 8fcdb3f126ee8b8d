"""Exporting: sizes that vary, weights that are shared, what is refused, and what stays as it was."""

import builtins
import copy
import json
from pathlib import Path

import pytest
import torch
from helpers.places import SHIPPED
from torch import fx, nn

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from hessrank.distill.tasks.lowlight.network import LowLight  # noqa: E402
from hessrank.errors import HessrankError, OutputError  # noqa: E402
from hessrank.quant.export import ExportError, export_onnx, write_scales  # noqa: E402
from hessrank.quant.export import convert as convert_module  # noqa: E402
from hessrank.quant.export.check import compare_runs  # noqa: E402
from hessrank.quant.policy import Policy  # noqa: E402
from hessrank.quant.prepare import prepare  # noqa: E402

CHECKPOINT = SHIPPED


POLICY = Policy.of({"extra_qconfig_dict": {"w_qscheme": {"bit": 8}, "a_qscheme": {"bit": 8}}})


def noise(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def classifier() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )
    for _ in range(5):
        model(torch.randn(8, 3, 16, 16))
    return model.eval()


@pytest.fixture
def linear(quantize):
    torch.manual_seed(0)
    return quantize(nn.Sequential(nn.Linear(4, 3)), noise(2, 4), "8 per_channel_affine", "8 affine")


def test_classifier_with_batch_norm_varies_in_size_and_shrinks(tmp_path, quantize) -> None:
    inputs = noise(1, 3, 16, 16)
    prepared = quantize(classifier(), inputs, "8 per_channel_affine", "8 affine")
    report = export_onnx(prepared, tmp_path / "model.onnx", inputs)
    assert dict(report.dynamic_axes["input"]) == {0: "batch", 2: "height", 3: "width"}
    assert not any("fixed" in note for note in report.notes)
    assert report.largest_difference <= 1.001
    assert report.ratio <= 0.35
    assert report.file_bytes == (tmp_path / "model.onnx").stat().st_size
    graph = onnx.load(tmp_path / "model.onnx").graph
    assert "BatchNormalization" not in {node.op_type for node in graph.node}
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    other = noise(3, 3, 20, 12)
    found = torch.as_tensor(session.run(None, {"input": other.numpy()})[0])
    with torch.no_grad():
        expected = prepared(other)
    step = dict(prepared.quantizers_by_path())[prepared.inserted[-1].quantizer].grid().scale
    assert ((found - expected).abs() / step).max() < 3  # end to end, with optimizations on
    text = str(report)
    assert "varying sizes: batch, height, width of 'input'" in text
    assert "of the float model's" in text


@pytest.mark.parametrize("bits", [4, 8, 10])
def test_low_light_network_is_within_one_step_of_the_last_bit(bits: int, tmp_path, quantize) -> None:
    state = torch.load(CHECKPOINT, weights_only=True)["model"]
    model = LowLight(state["DBF.DBF_conv1.Conv1.weight"].shape[0], state["DBLE.color_conv1.Conv1.weight"].shape[0])
    model.load_state_dict(state)
    inputs = noise(1, 1, 32, 64) ** 3
    prepared = quantize(model, inputs, f"{bits} per_channel_affine", f"{bits} affine")
    report = export_onnx(prepared, tmp_path / "model.onnx", inputs, dynamic=bits == 8)
    assert len(report.layers) > 50
    assert report.largest_difference <= 1.001
    assert max(layer.share for layer in report.layers.values()) < 0.05
    assert bits > 8 or report.ratio <= 0.35
    assert bits != 8 or dict(report.dynamic_axes["raw"]) == {0: "batch", 2: "height", 3: "width"}


def test_size_that_the_network_fixes_is_named_with_the_reason(tmp_path, quantize) -> None:
    inputs = noise(1, 3, 8, 8)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Flatten(), nn.Linear(256, 2))
    prepared = quantize(model, inputs, "8 per_channel_affine", "8 affine")
    report = export_onnx(prepared, tmp_path / "model.onnx", inputs)
    assert dict(report.dynamic_axes["input"]) == {0: "batch"}
    assert [note.split(",")[0] for note in report.notes] == ["height is fixed at 8", "width is fixed at 8"]
    assert all("mat1 and mat2 shapes cannot be multiplied" in note for note in report.notes)


@fx.wrap
def pooled(x: torch.Tensor) -> torch.Tensor:
    """Two ways of averaging, chosen by the size, which an exported graph cannot hold both."""
    return x.flatten(2).mean(2) if x.shape[2] == 8 else x.reshape(x.shape[0], x.shape[1], -1).mean(2) + 1


def test_size_that_export_fixes_is_named_after_the_file_failed_at_another(tmp_path, quantize) -> None:
    class Choosing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return pooled(self.conv(x))

    inputs = noise(2, 3, 8, 8)
    prepared = quantize(Choosing(), inputs, "8 per_channel_affine", "8 affine")
    report = export_onnx(prepared, tmp_path / "model.onnx", inputs)
    assert 2 not in report.dynamic_axes["x"]
    assert report.dynamic_axes["x"][0] == "batch"
    assert any("height" in note and "fixed" in note for note in report.notes)


class Reused(nn.Module):
    """One convolution called twice, and a linear layer tied to the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.hidden = nn.Linear(6, 6)
        self.head = nn.Linear(6, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.hidden(self.hidden(self.embed(tokens))))


def test_shared_weights_are_stored_once(tmp_path, quantize) -> None:
    torch.manual_seed(0)
    tokens = torch.arange(10).reshape(2, 5)
    prepared = quantize(Reused(), tokens, "8 per_channel_symmetric", "8 affine")
    report = export_onnx(prepared, tmp_path / "model.onnx", tokens)
    graph = onnx.load(tmp_path / "model.onnx").graph
    matrices = sorted(tuple(t.dims) for t in graph.initializer if len(t.dims) == 2)
    assert len(matrices) == 2
    assert dict(report.dynamic_axes["tokens"]) == {0: "batch", 1: "dim_1"}


@pytest.mark.parametrize(("groups", "outputs"), [(1, 4), (2, 6), (4, 4)])
def test_transposed_convolutions_in_groups_with_a_batch_norm(groups: int, outputs: int, tmp_path: Path) -> None:
    """In torch, in float64 and in onnxruntime; the batch norm shifts and scales every channel by another amount."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.ReLU(),
        nn.ConvTranspose2d(4, outputs, 4, 2, 1, groups=groups),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )
    norm = model[3]
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.3, 2)
    norm.weight.data.normal_(1, 0.5)
    inputs = noise(4, 3, 6, 6)
    prepared = prepare(model.eval(), POLICY, inputs)
    off = copy.deepcopy(prepared).double()
    off.set_quantizing(False)
    expected = copy.deepcopy(model).double()(inputs.double())
    torch.testing.assert_close(off(inputs.double()), expected, rtol=1e-10, atol=1e-10)
    export_onnx(prepared, tmp_path / "model.onnx", inputs)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    found = torch.from_numpy(session.run(None, {session.get_inputs()[0].name: inputs.numpy()})[0])
    step = float(prepared.table()["scale"].iloc[-1])
    with torch.no_grad():
        assert float((found - prepared(inputs)).abs().max()) < 2.01 * step  # 1, and where a value lies on an edge 2
        assert float((found - model(inputs)).abs().max()) < 6 * step


def test_exported_model_is_left_as_it_was(linear, tmp_path) -> None:
    linear.train()
    before = copy.deepcopy(linear.state_dict())
    names, code = [name for name, _ in linear.named_modules()], linear.code
    export_onnx(linear, tmp_path / "model.onnx", noise(2, 4), dynamic=False)
    assert linear.training
    assert [name for name, _ in linear.named_modules()] == names
    assert linear.code == code
    after = linear.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(x, before[k]) if isinstance(x, torch.Tensor) else x == before[k] for k, x in after.items())


def test_file_that_computes_something_else_is_not_written(linear, tmp_path, monkeypatch) -> None:
    (tmp_path / "model.onnx").write_text("the old file")
    right = convert_module.integers_of
    monkeypatch.setattr(convert_module, "integers_of", lambda *args: (right(*args) - 40).clamp(0, 255))
    with pytest.raises(ExportError, match=r"^layer '0' computes something else in onnxruntime: .* steps off$"):
        export_onnx(linear, tmp_path / "model.onnx", noise(2, 4), dynamic=False)
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    assert (tmp_path / "model.onnx").read_text() == "the old file"


def test_operator_without_translation_is_named_with_its_layer(tmp_path, quantize) -> None:
    class Odd(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.special.bessel_j0(x)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.odd = nn.Linear(4, 3), nn.Sequential(Odd())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.odd(self.first(x))

    prepared = quantize(Net(), noise(2, 4), "8 affine", "8 affine")
    with pytest.raises(ExportError, match=r"^ONNX has no operator for 'bessel_j0' in 'odd.0'") as caught:
        export_onnx(prepared, tmp_path / "model.onnx", noise(2, 4), dynamic=False)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_missing_package_is_named_with_the_install_line(linear, tmp_path, monkeypatch) -> None:
    from hessrank.quant.export import errors

    def missing(name: str):
        if name == "onnxscript":
            raise ModuleNotFoundError(name)
        return builtins.__import__(name)

    monkeypatch.setattr(errors.importlib, "import_module", missing)
    with pytest.raises(ExportError, match=r"needs onnxscript: .*pip install 'onnxscript>=0\.5'$"):
        export_onnx(linear, tmp_path / "model.onnx", noise(2, 4))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        pytest.param(noise(2, 5), r"does not run on these inputs \(input 2×5\): mat1 and mat2", id="wrong shape"),
        pytest.param((noise(2, 4), noise(2, 4)), r"takes 1 inputs \(input\), got 2", id="too many"),
        pytest.param({"x": noise(2, 4)}, r"inputs are input; got x", id="wrong name"),
        pytest.param([3], r"input 'input' is a int: ONNX export takes tensors", id="no tensor"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(inputs, message, linear, tmp_path) -> None:
    with pytest.raises(ExportError, match=message):
        export_onnx(linear, tmp_path / "model.onnx", inputs)


def test_model_without_quantization_or_in_another_precision_is_refused(linear, tmp_path) -> None:
    with pytest.raises(ExportError, match=r"'0.weight' is float64: ONNX export takes float32"):
        export_onnx(linear.double(), tmp_path / "model.onnx", noise(2, 4))
    linear.float().set_quantizing(False)
    with pytest.raises(ExportError, match="nothing is quantized"):
        export_onnx(linear, tmp_path / "model.onnx", noise(2, 4))


def test_unwritable_path_is_refused_before_any_work(linear, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(compare_runs, "measure", None)
    with pytest.raises(OutputError, match="there is no folder"):
        export_onnx(linear, tmp_path / "nowhere" / "model.onnx", noise(2, 4))
    assert issubclass(ExportError, HessrankError)


def test_scales_hold_every_grid(linear, tmp_path) -> None:
    write_scales(linear, tmp_path / "scales.json")
    rows = json.loads((tmp_path / "scales.json").read_text())["tensors"]
    assert [(row["layer"], row["tensor"], row["bits"], row["scheme"]) for row in rows] == [
        ("0", "weight", 8, "per_channel_affine"),
        ("input", "activation", 8, "per_tensor_affine"),
        ("0", "activation", 8, "per_tensor_affine"),
    ]
    quantizers = dict(linear.quantizers_by_path())
    for row in rows:
        grid = quantizers[row["quantizer"]].grid()
        assert torch.equal(torch.tensor(row["scale"]).reshape(-1), grid.scale)
        assert torch.equal(torch.tensor(row["zero_point"]).reshape(-1).int(), grid.zero_point.int())
        assert (row["quant_min"], row["quant_max"], row["axis"]) == (0, 255, grid.axis)


class Functions(nn.Module):
    """Its last layers are functions, whose values torch.onnx names as the network does."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = self.conv(x)
        return y.mean((2, 3)), torch.clamp(y, 0, 1)


def test_an_output_that_is_named_like_a_value_inside_is_told_apart(tmp_path) -> None:
    torch.manual_seed(0)
    inputs = noise(2, 3, 4, 4)
    report = export_onnx(prepare(Functions(), Policy(), inputs), tmp_path / "model.onnx", inputs)
    assert list(report.outputs) == ["mean", "clamp"]
    assert report.largest_difference <= 1.001


def test_a_model_that_was_not_prepared_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"a Linear is not prepared: give what hessrank\.prepare returned"):
        export_onnx(nn.Linear(2, 2), tmp_path / "m.onnx", torch.zeros(1, 2))  # type: ignore[arg-type]
