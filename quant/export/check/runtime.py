"""Running an ONNX model with onnxruntime on the CPU."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from hessrank.files.temporary_folder import temporary_folder
from hessrank.quant.export.errors import ExportError
from hessrank.quant.export.sizes import Inputs
from hessrank.text import first_line


def execute(
    data: bytes,
    inputs: Inputs,
    *,
    also: Iterable[str] = (),
    optimized: bool = False,
    settings: Mapping[str, str] | None = None,
    disabled: Sequence[str] = (),
) -> dict[str, Tensor]:
    """Return what onnxruntime computes, by the names of the values.

    Args:
        data: the file.
        inputs: by name; what the file does not take is left out.
        also: values inside the model that are wanted beside its outputs.
        optimized: with all of onnxruntime's optimizations, or none.
        settings: onnxruntime's session options, by name.
        disabled: names of optimizations to leave out.

    Raises:
        ExportError: it refuses the file, or fails on these inputs.
    """
    import onnxruntime  # noqa: PLC0415 - an export needs it, nothing else does

    options = onnxruntime.SessionOptions()
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimized else level.ORT_DISABLE_ALL
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4
    for name, setting in (settings or {}).items():
        options.add_session_config_entry(name, setting)
    try:
        session = onnxruntime.InferenceSession(
            _with_outputs(data, also),
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=list(disabled),
        )
        names = [value.name for value in session.get_outputs()]
        wanted = {value.name for value in session.get_inputs()}
        results = session.run(names, {name: x.numpy() for name, x in inputs.items() if name in wanted})
    except Exception as error:  # onnxruntime's errors have no base of their own
        raise ExportError(f"onnxruntime does not run the exported model: {first_line(error)}") from error
    return {name: torch.as_tensor(array) for name, array in zip(names, results, strict=True)}


def integer_kernels(data: bytes) -> set[str]:
    """Return what onnxruntime's integer kernels for a file read, by name.

    On this processor.

    Raises:
        ExportError: it refuses the file.
    """
    import onnx  # noqa: PLC0415
    import onnxruntime  # noqa: PLC0415

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    with temporary_folder() as folder:
        options.optimized_model_filepath = str(folder / "optimized.onnx")
        try:
            onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors have no base of their own
            raise ExportError(f"onnxruntime does not run the exported model: {first_line(error)}") from error
        graph = onnx.load(options.optimized_model_filepath).graph
    return {name for node in graph.node if node.op_type != "DequantizeLinear" for name in node.input}


def _with_outputs(data: bytes, names: Iterable[str]) -> bytes:
    import onnx  # noqa: PLC0415

    message = onnx.load_from_string(data)
    message.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    enlarged: bytes = message.SerializeToString()
    return enlarged
