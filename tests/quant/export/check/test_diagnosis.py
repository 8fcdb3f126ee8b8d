"""The cause why onnxruntime's optimizations move an output: each one made, and named."""

import pytest
import torch
from torch import Tensor, fx, nn

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from hessrank.quant.export import export_onnx
from hessrank.quant.export.capture import capture
from hessrank.quant.export.check import compare_runs, diagnosis
from hessrank.quant.export.check.diagnosis import SATURATES_HERE
from hessrank.quant.export.check.saturation import with_saturation
from hessrank.quant.export.check.steps import outputs_of
from hessrank.quant.export.convert import exportable, reference
from hessrank.quant.export.onnx_model import to_onnx
from hessrank.quant.export.sizes import named_inputs
from hessrank.quant.prepare import QuantizedModel, bias_steps


def noise(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def causes(prepared: QuantizedModel, inputs: Tensor, tmp_path) -> list[str]:
    report = export_onnx(prepared, tmp_path / "model.onnx", inputs, dynamic=False)
    assert report.largest_difference <= 1.001
    return list(report.notes)


def positive(*layers: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(*layers)
    with torch.no_grad():
        for layer in layers:
            if hasattr(layer, "weight"):
                layer.weight.abs_()
    return model


class Values(fx.Interpreter):
    """What stands behind every node."""

    def run_node(self, n: fx.Node):
        result = super().run_node(n)
        self.by_node = {**getattr(self, "by_node", {}), n.name: result}
        return result


@pytest.fixture
def without_vnni(monkeypatch):
    """Run files as on a processor without VNNI: integer kernels give what saturating products give."""
    run, measure = compare_runs.execute, compare_runs.measure
    saturated: dict[str, Tensor] = {}

    def execute(data, inputs, *, optimized=False, settings=None, **options):
        found = run(data, inputs, optimized=optimized, settings=settings, **options)
        exact = not optimized or {"session.x64quantprecision", "session.disable_quant_qdq"} & set(settings or {})
        return found if exact else {name: saturated.get(name, value) for name, value in found.items()}

    def measure_first(model, inputs, exported):
        emulated = with_saturation(model, exported)
        assert emulated is not None
        walk = Values(emulated)
        with torch.no_grad():
            saturated.update(zip(exported.outputs, [walk.run(*inputs.values())], strict=True))
        saturated.update({value: walk.by_node[node] for node, value in exported.quantized.items()})
        return measure(model, inputs, exported)

    monkeypatch.setattr("hessrank.quant.export.export.measure", measure_first)
    monkeypatch.setattr(diagnosis, "execute", execute)
    monkeypatch.setattr(compare_runs, "execute", execute)


@pytest.mark.usefixtures("without_vnni")
def test_saturation_here_is_named_with_what_to_do(tmp_path, quantize) -> None:
    inputs = noise(4, 8, 6, 6)
    model = positive(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.ReLU(), nn.Conv2d(8, 2, 1, bias=False))
    prepared = quantize(model, inputs, "8 per_channel_symmetric", "8 affine")
    (line,) = causes(prepared, inputs, tmp_path)
    assert line.startswith(f"{SATURATES_HERE}: layer '")
    assert "'session.x64quantprecision' to '1'" in line
    assert "bias" not in line


@pytest.mark.parametrize("scheme", ["8 per_channel_affine", "7 per_channel_symmetric", "8 per_channel_symmetric"])
def test_saturation_elsewhere_is_foreseen(scheme, tmp_path, quantize) -> None:
    inputs = noise(4, 8, 6, 6)
    model = positive(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.ReLU(), nn.Conv2d(8, 2, 1, bias=False))
    lines = causes(quantize(model, inputs, scheme, "8 affine"), inputs, tmp_path)
    told = [line for line in lines if "x86 processors without VNNI" in line or line.startswith(SATURATES_HERE)]
    assert len(told) == (scheme == "8 per_channel_symmetric")
    assert not any("bias" in line for line in lines)


def test_rounded_biases_are_named(tmp_path, quantize) -> None:
    inputs = 10 * noise(64, 1)
    model = nn.Sequential(nn.Linear(1, 4), nn.ReLU())
    with torch.no_grad():
        model[0].weight.fill_(1.0)
        model[0].bias.copy_(torch.tensor([-9.51, -9.62, -9.73, -9.84]))  # which most of w·x goes into
    prepared = quantize(model, inputs, "2 per_channel_affine", "8 affine")
    (line,) = causes(prepared, inputs, tmp_path)
    assert line.startswith(
        "onnxruntime's optimizations round biases to multiples of input step × weight step: layer '1' is off by up to"
    )
    assert "'session.disable_quant_qdq' to '1'" in line


def test_biases_beyond_int32_are_named_by_channel(tmp_path, quantize, monkeypatch) -> None:
    monkeypatch.setattr(bias_steps, "LARGEST_BIAS", 2.0**60)
    inputs = noise(8, 6)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 5))
    with torch.no_grad():
        model[2].weight[[1, 3]] *= 1e-8
    lines = causes(quantize(model, inputs, "8 per_channel_affine", "8 affine"), inputs, tmp_path)
    assert len(lines) == 1
    assert "do not fit into int32" in lines[0]
    assert "('2', channels 1, 3)" in lines[0]


def test_sums_beyond_int32_are_named(tmp_path, quantize) -> None:
    inputs = 0.9 + noise(2, 70_000) / 10
    model = nn.Sequential(nn.Linear(70_000, 2, bias=False))
    with torch.no_grad():
        model[0].weight.fill_(1e-2)
    lines = causes(quantize(model, inputs, "8 per_channel_affine", "8 affine"), inputs, tmp_path)
    assert [line.split(":")[0] for line in lines] == ["sums of products overflow int32"]


def test_float_weights_that_onnxruntime_rounds_are_named(tmp_path, quantize) -> None:
    torch.manual_seed(0)
    inputs = torch.randn(8, 6)
    inputs[:, 0] = 0
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 5))
    with torch.no_grad():
        model[0].weight[:, 0] = 100  # which the inputs never meet
    prepared = quantize(model, inputs, "8 per_channel_affine", "8 affine")
    prepared.get_submodule("0").weight_quantizer.enabled = False
    lines = causes(prepared, inputs, tmp_path)
    assert [line.split(":")[0] for line in lines] == [
        "onnxruntime's optimizations round weights that stay in float to 8 bits"
    ]


def test_what_no_cause_explains_is_said_to_be_unexplained(tmp_path, quantize, monkeypatch) -> None:
    inputs = noise(8, 6)
    torch.manual_seed(0)
    prepared = quantize(nn.Sequential(nn.Linear(6, 4)), inputs, "8 per_channel_affine", "8 affine")
    real = diagnosis.execute

    def execute(*args, optimized=False, settings=None, **options):
        found = real(*args, optimized=optimized, settings=settings, **options)
        exact = not optimized or "session.disable_quant_qdq" in (settings or {})
        return found if exact else {name: value + 0.5 for name, value in found.items()}

    monkeypatch.setattr(diagnosis, "execute", execute)
    monkeypatch.setattr(compare_runs, "execute", execute)
    (line,) = causes(prepared, inputs, tmp_path)
    assert line.startswith("onnxruntime's integer kernels compute something else, unexplained: layer '0' is off by")


def test_edges_that_later_layers_carry_on_are_no_fault_of_a_layer(quantize) -> None:
    inputs = noise(8, 6)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3))
    model = reference(quantize(model, inputs, "8 per_channel_affine", "8 affine"))
    given = named_inputs(model, inputs)
    exported = to_onnx(capture(exportable(model), given, []), list(given), list(outputs_of(model)))
    (line,) = diagnosis.diagnose(model, given, exported)  # in which no layer is off on equal inputs
    assert line.startswith(
        "onnxruntime's optimizations add up in another order: on equal inputs every layer is within"
    )
