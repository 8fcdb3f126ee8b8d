"""Compare what the file computes with what the prepared model computes.

Asked of onnxruntime, layer by layer and end to end.

Two ways of adding up a convolution differ in the last bit of a float. Where that falls on the edge between two
integers, the quantizer behind it gives neighbors, one step apart, and later layers carry the step on: a 4-bit step
in the middle becomes many steps of a 10-bit output, and one gate of a channel attention moves a whole channel.
torch's own two convolution kernels differ from each other as much. So the verdict is on each quantizer, given the
values that onnxruntime gave the layers before it: one step is the most that rounding explains there. The
outputs are also compared end to end, beside what torch's other kernels make of the same model.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils._pytree import tree_leaves

from hessrank.quant.export.check.runtime import execute
from hessrank.quant.export.check.steps import Difference, output_steps, step_at
from hessrank.quant.export.errors import ExportError
from hessrank.quant.export.onnx_model import OnnxModel
from hessrank.quant.export.sizes import Inputs, run
from hessrank.quant.prepare.model import QuantizedModel

TOLERANCE = 1.001
"""Steps: one, and what float arithmetic adds to it."""


@dataclass(frozen=True)
class ExportAgreement:
    """How far a file is from the model.

    Attributes:
        layers: each quantizer and output, on the inputs that onnxruntime gave it.
        outputs: each output, end to end.
        own: the same for torch with its other convolution kernels, in place of onnxruntime.
    """

    layers: dict[str, Difference]
    outputs: dict[str, Difference]
    own: dict[str, Difference]

    def judge(self) -> None:
        """Accept what rounding explains.

        Raises:
            ExportError: a layer is more than one step off; it is named.
        """
        for layer, difference in self.layers.items():
            if not difference.largest <= TOLERANCE:  # NaN included
                raise ExportError(
                    f"layer {layer!r} computes something else in onnxruntime: on equal inputs it is "
                    f"{difference.largest:.3g} quantization steps off"
                )


def measure(model: QuantizedModel, inputs: Inputs, exported: OnnxModel) -> ExportAgreement:
    """Compare a file with the model, onnxruntime's own optimizations off.

    Args:
        model: what was exported, on the CPU and in evaluation mode.
        inputs: what both are given.
        exported: the file.

    Raises:
        ExportError: onnxruntime does not run the file.
    """
    values = execute(exported.data, inputs, also=exported.inner)
    found = {name: values[name] for name in exported.outputs}
    expected = _outputs(exported, run(model, inputs))
    steps = output_steps(model, expected)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about Intel's GPUs
        with torch.backends.mkldnn.flags(enabled=False):
            other = _outputs(exported, run(model, inputs))
    return ExportAgreement(
        layer_differences(model, inputs, exported, values),
        _differences(expected, found, steps),
        _differences(expected, other, steps),
    )


def measure_optimized(model: QuantizedModel, inputs: Inputs, exported: OnnxModel) -> dict[str, Difference]:
    """Compare the outputs with all of onnxruntime's optimizations on.

    See :mod:`~hessrank.quant.export.check.diagnosis`.

    Raises:
        ExportError: onnxruntime does not run the file that way.
    """
    expected = _outputs(exported, run(model, inputs))
    found = execute(exported.data, inputs, optimized=True)
    return _differences(expected, found, output_steps(model, expected))


def layer_differences(
    model: QuantizedModel, inputs: Inputs, exported: OnnxModel, values: Mapping[str, Tensor]
) -> dict[str, Difference]:
    """Compare every quantizer and output, on equal inputs.

    That is, given the values that the layers before it have in the file.

    Args:
        model: on the CPU and in evaluation mode.
        inputs: what both are given.
        exported: the file.
        values: what it computed: its outputs and its inner values.
    """
    walk = _Lockstep(model, {node: values[value] for node, value in exported.quantized.items()})
    last = _outputs(exported, walk.run(*inputs.values()))
    steps = output_steps(model, _outputs(exported, run(model, inputs)))
    return {**_differences(last, values, steps), **walk.differences}


class _Lockstep(fx.Interpreter):
    """Runs the model on what onnxruntime computed.

    It goes on from each quantizer with the value that onnxruntime has there.
    """

    def __init__(self, model: QuantizedModel, values: Mapping[str, Tensor]) -> None:
        super().__init__(model)
        self._model, self._values = model, values
        self._layers = {node: layer for layer, node in model.layer_nodes.items()}
        self.differences: dict[str, Difference] = {}

    def run_node(self, n: fx.Node) -> Any:
        with torch.no_grad():
            result = super().run_node(n)
        if n.name not in self._values:
            return result
        found = self._values[n.name]
        name = self._layers.get(n.name, n.name)
        self.differences[name] = Difference.between(result, found, step_at(self._model, n, result.ndim))
        return found


def _outputs(exported: OnnxModel, result: object) -> dict[str, Tensor]:
    tensors = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
    return dict(zip(exported.outputs, tensors, strict=True))


def _differences(
    expected: Mapping[str, Tensor], found: Mapping[str, Tensor], steps: Mapping[str, Tensor]
) -> dict[str, Difference]:
    return {name: Difference.between(expected[name], found[name], steps[name]) for name in expected}
