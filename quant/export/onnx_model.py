"""Make an ONNX model of torch.export's program.

Small, checked for form, and named as the network is.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
from torch.export import ExportedProgram

from hessrank.quant.export.capture import Captured
from hessrank.quant.export.errors import ExportError
from hessrank.quant.export.ops import translations
from hessrank.quant.export.plain_names import own_name
from hessrank.text import first_line

OPSET = 21
"""The first opset with 4-bit and 16-bit integers in QuantizeLinear and DequantizeLinear."""
LARGEST = 2**31 - 1
"""Bytes in one protobuf message."""


@dataclass(frozen=True)
class OnnxModel:
    """A model ready to be written.

    Attributes:
        data: the file.
        float_bytes: size of the same graph with float32 weights and without quantizers.
        quantized: the value in the file for each torch.fx node with a quantizer.
        inputs: names of the inputs.
        outputs: names of the outputs.
    """

    data: bytes
    float_bytes: int
    quantized: dict[str, str]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def inner(self) -> list[str]:
        """The values behind quantizers that are no outputs."""
        return [value for value in self.quantized.values() if value not in self.outputs]


def to_onnx(captured: Captured, inputs: Sequence[str], outputs: Sequence[str]) -> OnnxModel:
    """Translate a captured model.

    Args:
        captured: from :func:`~hessrank.quant.export.capture.capture`.
        inputs: names to give the inputs.
        outputs: names to give the outputs.

    Raises:
        ExportError: an operator has no translation (with the layer), or the model is too large for one file.
    """
    import onnx  # noqa: PLC0415 - an export needs it, nothing else does
    import onnx_ir  # noqa: PLC0415
    import onnx_ir.passes.common as passes  # noqa: PLC0415

    _check_size(captured.program)
    program = _translate(captured)
    model = program.model
    _store_as_cast(model)
    with _quiet():
        program.optimize()
    passes.DeduplicateInitializersPass(size_limit=LARGEST)(model)
    passes.ClearMetadataAndDocStringPass()(model)
    for value in list(model.graph.initializers.values()):
        value.name = own_name(value.name, captured.called)
    _rename(model, inputs, outputs, captured.symbols)
    quantized = _value_names(captured.program, model)
    passes.RemoveUnusedNodesPass()(model)
    message = onnx_ir.to_proto(model)
    del message.graph.value_info[:]  # shapes inside the graph follow from its inputs
    data = message.SerializeToString()
    onnx.checker.check_model(message)
    return OnnxModel(data, _float_bytes(message), quantized, tuple(inputs), tuple(outputs))


def _check_size(program: ExportedProgram) -> None:
    size = sum(tensor.numel() * tensor.element_size() for tensor in program.state_dict.values())
    if size > LARGEST:
        raise ExportError(
            f"the model holds {size / 2**30:.1f} GiB of tensors: an ONNX file above 2 GiB needs external data, "
            "which is not supported"
        )


def _translate(captured: Captured) -> Any:
    program = captured.program
    try:
        with _quiet():
            return torch.onnx.export(
                program,
                dynamo=True,
                opset_version=OPSET,
                custom_translation_table=translations(),
                optimize=False,
                verbose=False,
            )
    except Exception as error:  # torch.onnx wraps what went wrong two or three deep
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        layer = _layer(program, str(error)) or _layer(program, str(error.__cause__))
        where = f" in {own_name(layer, captured.called)!r}" if layer else ""
        if missing := re.match(r"No ONNX function found for <OpOverload\(op='(\S+)'", str(cause)):
            operator, place = missing[1].partition(".")[2], where or " in forward"
            raise ExportError(
                f"ONNX has no operator for {operator!r}{place}: compute it of other operators there"
            ) from error
        raise ExportError(f"torch.onnx.export fails{where}: {first_line(cause)}") from error


def _layer(program: ExportedProgram, message: str) -> str:
    """Return the module that the torch.fx node in an error message comes from."""
    found = re.search(r"node %?(\w+?)(?:_\d+)? ", message)
    for node in program.graph.nodes:
        if found and found[1] in node.name:  # decomposed, "special_bessel_j0" is "bessel_j0"
            stack = list(node.meta.get("nn_module_stack", {}).values())
            return str(stack[-1][0]).removesuffix(".plain") if stack else ""
    return ""


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back what torch.onnx says about missing packages and itself."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _store_as_cast(model: Any) -> None:
    """Store every integer in the type that the Cast behind it asks for.

    And take the Cast out.
    """
    import onnx_ir  # noqa: PLC0415

    graph = model.graph
    for node in [node for node in graph if node.op_type == "Cast" and node.inputs[0].is_initializer()]:
        stored, kind = node.inputs[0], onnx_ir.DataType(node.attributes["to"].as_int())
        if kind.is_floating_point() or node.outputs[0].is_graph_output():
            continue
        name = f"{stored.name}.{kind.name.lower()}"
        if name not in graph.initializers:
            integers = stored.const_value.numpy().astype(kind.numpy())
            graph.register_initializer(onnx_ir.val(name, const_value=onnx_ir.tensor(integers, dtype=kind, name=name)))
        node.outputs[0].replace_all_uses_with(graph.initializers[name])
        graph.remove(node, safe=True)


def _rename(model: Any, inputs: Sequence[str], outputs: Sequence[str], symbols: dict[str, str]) -> None:
    import onnx_ir  # noqa: PLC0415

    ends = [*model.graph.inputs, *model.graph.outputs]
    values = [*model.graph.initializers.values(), *(value for node in model.graph for value in node.outputs)]
    names = {*inputs, *outputs, *(value.name for value in values)}
    for value in values:
        if value.name in (*inputs, *outputs) and not any(value is end for end in ends):
            value.name = next(name for i in count(1) if (name := f"{value.name}_{i}") not in names)
            names.add(value.name)
    for value, name in zip(ends, [*inputs, *outputs], strict=True):
        value.name = name
    for value in [*model.graph.inputs, *model.graph.outputs]:
        if value.shape is not None and not value.shape.is_static():
            value.shape = onnx_ir.Shape([
                dim if isinstance(dim, int) else re.sub(r"\w+", lambda w: symbols.get(w[0], w[0]), str(dim.value))
                for dim in value.shape
            ])  # fmt: skip


def _value_names(program: ExportedProgram, model: Any) -> dict[str, str]:
    """Return the name of each quantizer's value in the file.

    By the torch.fx node of the prepared model.
    """
    kept = {node.outputs[0].name for node in model.graph}
    operator = torch.ops.hessrank.quantize_dequantize.default
    found = {str(node.args[-1]): node.name for node in program.graph.nodes if node.target is operator}
    return {node: value for node, value in found.items() if value in kept}


def _float_bytes(message: Any) -> int:
    """Return the size of the same graph with float32 weights and without quantizers."""
    import onnx_ir  # noqa: PLC0415
    import onnx_ir.passes.common as passes  # noqa: PLC0415

    model = onnx_ir.from_proto(message)
    numbers = 0
    for node in [node for node in model.graph if node.op_type == "DequantizeLinear"]:
        stored = node.inputs[0]
        if stored.is_initializer():
            numbers += stored.const_value.size
            name = node.outputs[0].name
            empty = onnx_ir.val(name, const_value=onnx_ir.tensor([0.0], name=name))
            node.outputs[0].name = f"{name}.dequantized"
            model.graph.register_initializer(empty)
            node.outputs[0].replace_all_uses_with(empty)
        else:
            value = stored.producer().inputs[0]
            while value.producer() is not None and value.producer().op_type in ("Clip", "Min", "Max"):
                value = value.producer().inputs[0]
            node.outputs[0].replace_all_uses_with(value, replace_graph_outputs=True)
    passes.RemoveUnusedNodesPass()(model)
    return len(onnx_ir.to_proto(model).SerializeToString()) + 4 * numbers
