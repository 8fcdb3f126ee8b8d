"""Write a prepared model as an ONNX file that an integer runtime takes.

It is checked before it is kept.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from hessrank.files.atomic_write import check_writable, written_whole
from hessrank.models.wrappers import unwrap
from hessrank.out_of_memory import explain_memory_errors
from hessrank.quant.export.capture import Captured, capture
from hessrank.quant.export.check.compare_runs import TOLERANCE, measure, measure_optimized
from hessrank.quant.export.check.diagnosis import SATURATES_HERE, diagnose, foresee_saturation
from hessrank.quant.export.check.steps import outputs_of
from hessrank.quant.export.convert import exportable, reference
from hessrank.quant.export.errors import ExportError, require_onnx
from hessrank.quant.export.flat_outputs import flatten_outputs
from hessrank.quant.export.onnx_model import OPSET, OnnxModel, to_onnx
from hessrank.quant.export.report import ExportReport
from hessrank.quant.export.sizes import Axis, Inputs, free_axes, named_inputs, resized, run
from hessrank.quant.export.weight_grids import weight_grids
from hessrank.quant.prepare.model import QuantizedModel


def export_onnx(
    prepared: QuantizedModel, path: str | Path, inputs: Any, *, dynamic: bool = True, check: bool = True
) -> ExportReport:
    """Write a prepared model as ONNX.

    QuantizeLinear and DequantizeLinear, weights as integers, batch norm folded.

    Args:
        prepared: the calibrated (and perhaps trained) model; untouched.
        path: the file; replaced whole, or not at all.
        inputs: sample inputs with their batch dimension: a tensor, a sequence, or tensors by name. Real ones
            make a better check than random ones.
        dynamic: leave batch, height and width open where the model takes other sizes; the report says which.
        check: run the file with onnxruntime and compare it with ``prepared`` in evaluation mode.

    Raises:
        ExportError: a package is missing, the model does not export, or the file computes something else.
        OutputError: the file cannot be written.

    Example:
        >>> import torch
        >>> import hessrank
        >>> network, data = torch.nn.Sequential(torch.nn.Linear(2, 1), torch.nn.ReLU()), torch.eye(2)
        >>> prepared = hessrank.prepare(network, hessrank.Policy(), data)
        >>> report = hessrank.export_onnx(prepared, "network.onnx", data)
        >>> report.path.name, report.largest_difference <= 1  # quantization step
        ('network.onnx', True)
    """
    quantized = unwrap(prepared)
    if not isinstance(quantized, QuantizedModel):
        raise ExportError(f"a {type(quantized).__name__} is not prepared: give what hessrank.prepare returned")
    require_onnx()
    check_writable(path)
    with explain_memory_errors():
        model = reference(quantized)
        given = named_inputs(model, inputs)
        _check_repeats(model, given)
        flatten_outputs(model, given)
        _, raised = weight_grids(model)
        axes, fixed = free_axes(model, given) if dynamic else ([], [])
        captured, exported, dropped = _build(model, given, axes, check=check)
        report = ExportReport(
            Path(path),
            OPSET,
            len(exported.data),
            exported.float_bytes,
            captured.dynamic,
            notes=(*fixed, *dropped, *captured.notes, *raised),
        )
        with written_whole(path) as beside:
            beside.write_bytes(exported.data)
            return _checked(report, model, given, exported) if check else report


def _check_repeats(model: QuantizedModel, inputs: Inputs) -> None:
    once, again = (tree_leaves(run(model, inputs)) for _ in range(2))
    pairs = zip(once, again, strict=False)
    if not all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in pairs if isinstance(a, torch.Tensor)):
        raise ExportError(
            "the model gives another output each time that it runs, so that a file cannot be compared with it: "
            "let forward draw no random numbers and keep no count in evaluation mode"
        )


def _build(
    model: QuantizedModel, inputs: Inputs, axes: list[Axis], *, check: bool
) -> tuple[Captured, OnnxModel, list[str]]:
    """Export with as many varying sizes as work: all of them, the batch alone, none."""
    notes: list[str] = []
    ladder = [axes, [axis for axis in axes if axis.name == "batch"], []]
    while True:
        tried = ladder[0]
        try:
            captured = capture(exportable(model), inputs, tried)
            exported = to_onnx(captured, list(inputs), list(outputs_of(model)))
            if check:
                _check_other_sizes(model, inputs, tried, exported, captured)
        except ExportError as error:
            ladder = [rung for rung in ladder if len(rung) < len(tried)]
            if not ladder:
                raise
            lost = ", ".join(axis.name for axis in tried if axis not in ladder[0])
            notes.append(f"{lost} fixed, since with varying sizes {error}")
            continue
        return captured, exported, notes


def _check_other_sizes(
    model: QuantizedModel, inputs: Inputs, axes: list[Axis], exported: OnnxModel, captured: Captured
) -> None:
    """Compare file and model at other sizes than those that were exported."""
    free = {(name, dim) for name, dims in captured.dynamic.items() for dim in dims}
    moved = [axis for axis in axes if set(axis.places) <= free]
    settings = [resized(inputs, moved)] if moved else []
    try:
        for other in settings:
            run(model, other)
    except ExportError:  # sizes that must agree with each other
        settings = [resized(inputs, [axis]) for axis in moved]
    for other in settings:
        measure(model, other, exported).judge()


def _checked(report: ExportReport, model: QuantizedModel, inputs: Inputs, exported: OnnxModel) -> ExportReport:
    agreement = measure(model, inputs, exported)
    agreement.judge()
    report = replace(report, layers=agreement.layers, outputs=agreement.outputs, own=agreement.own)
    try:
        optimized = measure_optimized(model, inputs, exported)
    except ExportError as error:
        return replace(report, notes=(*report.notes, f"with its optimizations on, {error}"))
    moved = any(optimized[name].largest > max(TOLERANCE, plain.largest) for name, plain in report.outputs.items())
    causes = diagnose(model, inputs, exported) if moved else []
    if not any(cause.startswith(SATURATES_HERE) for cause in causes):
        causes += foresee_saturation(model, inputs, exported)
    return replace(report, optimized=optimized, notes=(*report.notes, *causes))
