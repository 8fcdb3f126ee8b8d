"""What an export tells: how large, how exact, how flexible."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hessrank.quant.export.check.steps import Difference
from hessrank.text import size_text


@dataclass(frozen=True)
class ExportReport:
    """An exported model, and how far it is from the prepared one.

    Attributes:
        path: the file.
        opset: version of ONNX's operators.
        file_bytes: its size.
        float_bytes: size of the same ONNX graph with float32 weights and without quantizers.
        dynamic_axes: names of the dimensions that may vary, for each input.
        layers: difference of every quantizer and output from the prepared model, given the inputs that onnxruntime
            gave it, its optimizations off; empty when nothing was checked.
        outputs: difference of each output, end to end.
        own: the same for torch with its other convolution kernels, in place of onnxruntime.
        optimized: as ``outputs``, with all of onnxruntime's optimizations on.
        notes: what is fixed or unusual, and why.
    """

    path: Path
    opset: int
    file_bytes: int
    float_bytes: int
    dynamic_axes: Mapping[str, Mapping[int, str]]
    layers: Mapping[str, Difference] = field(default_factory=dict)
    outputs: Mapping[str, Difference] = field(default_factory=dict)
    own: Mapping[str, Difference] = field(default_factory=dict)
    optimized: Mapping[str, Difference] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def ratio(self) -> float:
        """Size as a share of the float model's."""
        return self.file_bytes / self.float_bytes

    @property
    def largest_difference(self) -> float:
        """Largest difference of any layer on equal inputs, in quantization steps.

        0 when nothing was checked.
        """
        return max((difference.largest for difference in self.layers.values()), default=0.0)

    def __str__(self) -> str:
        size = f"{size_text(self.file_bytes)}, {self.ratio:.3f} of the float model's {size_text(self.float_bytes)}"
        axes = [f"{', '.join(axes.values())} of {name!r}" for name, axes in self.dynamic_axes.items() if axes]
        varying = f"varying sizes: {'; '.join(axes) or 'none'}"
        lines = [f"{self.path}: {size}; opset {self.opset}", varying, *self._checked()]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])

    def _checked(self) -> list[str]:
        if not self.layers:
            return ["not checked"]
        layer = max(self.layers, key=lambda name: self.layers[name].largest)
        lines = [
            f"onnxruntime, {len(self.layers)} layers on equal inputs: at most {self.layers[layer]} "
            f"({layer}), in quantization steps"
        ]
        for name, difference in self.outputs.items():
            optimized = self.optimized.get(name)
            more = f"; with its optimizations {optimized}" if optimized else ""
            lines.append(f"output {name}, end to end: {difference}; torch's other kernels {self.own[name]}{more}")
        return lines
