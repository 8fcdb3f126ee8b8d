"""Small networks against explicit integer arithmetic, and what the file holds."""

import math

import numpy as np
import pytest
import torch
from torch import nn

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from hessrank.quant.export import export_onnx  # noqa: E402
from hessrank.quant.scheme import Scheme  # noqa: E402

IMAGES, ROWS, SOUNDS, TOKENS = "images", "rows", "sounds", "tokens"
INPUTS = {
    IMAGES: torch.randn(2, 3, 6, 5, generator=torch.Generator().manual_seed(1)),
    ROWS: torch.randn(4, 7, generator=torch.Generator().manual_seed(2)),
    SOUNDS: torch.randn(2, 3, 9, generator=torch.Generator().manual_seed(3)),
    TOKENS: torch.arange(6).reshape(2, 3),
}
CASES = [
    pytest.param(
        lambda: nn.Conv2d(3, 5, 3), IMAGES, "2 per_channel_symmetric", "INT4", id="conv2d-2-channel-symmetric"
    ),
    pytest.param(
        lambda: nn.ConvTranspose2d(3, 5, 2), IMAGES, "3 per_channel_affine", "UINT4", id="transpose-3-channel-affine"
    ),
    pytest.param(lambda: nn.Linear(7, 5), ROWS, "4 per_channel_affine", "UINT4", id="linear-4-channel-affine"),
    pytest.param(lambda: nn.Conv1d(3, 5, 3), SOUNDS, "5 per_tensor_affine", "UINT8", id="conv1d-5-tensor-affine"),
    pytest.param(
        lambda: nn.Embedding(6, 5), TOKENS, "8 per_channel_symmetric", "INT8", id="embedding-8-channel-symmetric"
    ),
    pytest.param(
        lambda: nn.Conv2d(3, 5, 3), IMAGES, "10 per_tensor_symmetric", "INT16", id="conv2d-10-tensor-symmetric"
    ),
    pytest.param(
        lambda: nn.ConvTranspose2d(3, 5, 2),
        IMAGES,
        "16 per_channel_affine",
        "UINT16",
        id="transpose-16-channel-affine",
    ),
    pytest.param(
        lambda: nn.ConvTranspose2d(3, 5, 2),
        IMAGES,
        "4 per_channel_symmetric",
        "INT4",
        id="transpose-4-channel-symmetric",
    ),
]


def integers(x: torch.Tensor, grid) -> torch.Tensor:
    """Return the integers of a tensor on a grid, in float64."""
    shape = [-1 if dim == grid.axis else 1 for dim in range(x.ndim)]
    scale, zero_point = (
        t.double().reshape(shape if grid.axis is not None else ()) for t in (grid.scale, grid.zero_point)
    )
    return ((x.double() / scale).round() + zero_point).clamp(grid.quant_min, grid.quant_max)


def values(q: torch.Tensor, grid) -> torch.Tensor:
    shape = [-1 if dim == grid.axis else 1 for dim in range(q.ndim)]
    scale, zero_point = (
        t.double().reshape(shape if grid.axis is not None else ()) for t in (grid.scale, grid.zero_point)
    )
    return (q - zero_point) * scale


def stored_weight(path, ndim: int):
    """Return the initializer with integers of so many dimensions."""
    graph = onnx.load(path).graph
    found = [t for t in graph.initializer if len(t.dims) == ndim and t.data_type != onnx.TensorProto.FLOAT]
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize(("make", "sample", "scheme", "kind"), CASES)
def test_file_computes_what_integers_give(make, sample, scheme, kind, tmp_path, quantize) -> None:
    torch.manual_seed(0)
    inputs, layer = INPUTS[sample], make()
    prepared = quantize(nn.Sequential(layer), inputs, scheme, scheme.replace("per_channel", "per_tensor"))
    report = export_onnx(prepared, tmp_path / "model.onnx", inputs, dynamic=False)

    module = prepared.get_submodule("0")
    weight_grid = module.weight_quantizer.grid()
    q = integers(layer.weight.detach(), weight_grid)
    stored = stored_weight(tmp_path / "model.onnx", layer.weight.ndim)
    assert stored.data_type == getattr(onnx.TensorProto, kind)
    assert len(stored.raw_data) == math.ceil(q.numel() * int(kind.lstrip("UINT")) / 8)
    assert np.array_equal(onnx.numpy_helper.to_array(stored).astype(np.int64), q.numpy().astype(np.int64))

    quantizers = [m for name, m in prepared.quantizers_by_path() if name.startswith("quantizers")]
    exact = make().double()
    exact.load_state_dict({k: v.double() for k, v in layer.state_dict().items()})
    with torch.no_grad():
        exact.weight.copy_(values(q, weight_grid))
        grid = quantizers[0].grid()
        y = exact(values(integers(inputs, grid), grid) if inputs.is_floating_point() else inputs)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    found = torch.as_tensor(session.run(None, {session.get_inputs()[0].name: inputs.numpy()})[0])
    last = quantizers[-1].grid()
    assert (integers(found, last) - integers(y, last)).abs().max() <= 1
    assert (integers(found, last) == integers(y, last)).double().mean() > 0.9
    assert report.largest_difference <= 1.001


@pytest.mark.parametrize(
    ("scheme", "held_in"),
    [("4 affine", "UINT8"), ("8 affine", "UINT8"), ("8 symmetric", "INT8"), ("10 affine", "UINT16")],
)
def test_clip_stands_where_the_grid_is_narrower_than_the_type(scheme, held_in, quantize) -> None:
    from hessrank.quant.export.convert import exportable, reference
    from hessrank.quant.export.integers import IntegerType

    inputs = INPUTS[ROWS]
    prepared = quantize(nn.Sequential(nn.Linear(7, 5)), inputs, "8 affine", scheme)
    converted = exportable(reference(prepared))
    kinds = {(IntegerType(m._kind).name, m._clips) for m in converted.modules() if hasattr(m, "_clips")}
    bits = Scheme.parse(scheme, Scheme(8))
    full = (bits.quant_min, bits.quant_max) == IntegerType[held_in].limits
    assert kinds == {(held_in, not full)}
    with torch.no_grad():
        torch.testing.assert_close(converted(inputs), prepared(inputs), rtol=0, atol=1e-5)
