"""Running an ONNX model with onnxruntime on the CPU."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from hessrank.analysis.batches import first_line
from hessrank.quant.export.errors import ExportError
from hessrank.quant.export.sizes import Inputs


def execute(data: bytes, inputs: Inputs, *, also: Iterable[str] = (), optimized: bool = False) -> dict[str, Tensor]:
    """Return what onnxruntime computes, by the names of the values.

    Args:
        data: the file.
        inputs: by name; what the file does not take is left out.
        also: values inside the model that are wanted beside its outputs.
        optimized: with all of onnxruntime's optimizations, or none.

    Raises:
        ExportError: it refuses the file, or fails on these inputs.
    """
    import onnxruntime  # noqa: PLC0415 - an export needs it, nothing else does

    options = onnxruntime.SessionOptions()
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimized else level.ORT_DISABLE_ALL
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(_with_outputs(data, also), options, providers=["CPUExecutionProvider"])
        names = [value.name for value in session.get_outputs()]
        wanted = {value.name for value in session.get_inputs()}
        results = session.run(names, {name: x.numpy() for name, x in inputs.items() if name in wanted})
    except Exception as error:  # onnxruntime's errors have no base of their own
        raise ExportError(f"onnxruntime does not run the exported model: {first_line(error)}") from error
    return {name: torch.as_tensor(array) for name, array in zip(names, results, strict=True)}


def _with_outputs(data: bytes, names: Iterable[str]) -> bytes:
    import onnx  # noqa: PLC0415

    message = onnx.load_from_string(data)
    message.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    enlarged: bytes = message.SerializeToString()
    return enlarged
