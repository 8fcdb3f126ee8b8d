"""Find why onnxruntime's optimizations move an output by more than a step.

Each candidate cause is measured.

All of its optimizations on, the file is run again with its inner values as outputs, and every layer is compared with
the model on equal inputs. Then one cause after the other is taken away, by an option of onnxruntime, or put
into the model, by computing as an integer kernel does. The layers that then agree are those that it moved:

    saturation      x86 kernels without VNNI add pairs of uint8 × int8 products in 16 bits (vpmaddubsw)
    int32           biases become whole multiples of input step × weight step; sums that int32 does not hold wrap
    float weights   where a policy leaves a weight in float, onnxruntime rounds it to 8 bits
    order           sums in another order: no layer is more than a step off

A layer that none of them explains is named as unexplained.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from hessrank.quant.export.check.compare_runs import TOLERANCE, layer_differences
from hessrank.quant.export.check.runtime import execute
from hessrank.quant.export.check.saturation import with_saturation
from hessrank.quant.export.check.steps import Difference
from hessrank.quant.export.int32_arithmetic import overflowing_biases, with_int32_biases, with_int32_sums
from hessrank.quant.export.onnx_model import OnnxModel
from hessrank.quant.export.sizes import Inputs
from hessrank.quant.prepare.model import QuantizedModel
from hessrank.text import listed

Differences = Mapping[str, Difference]
WITHOUT_SATURATION = {"session.x64quantprecision": "1"}
WITHOUT_INTEGERS = {"session.disable_quant_qdq": "1"}
BIASES_AND_WEIGHTS = "WeightBiasQuantization"
"""The optimization that makes integers of biases, and of weights that are float in the file."""

_AS_TRAINED = "to compute what was trained, set the session option 'session.disable_quant_qdq' to '1'"
_NARROWER = (
    "set the session option 'session.x64quantprecision' to '1', or make the policy with --weight-scheme "
    "per_channel_affine, or give these weights 7 bits"
)
_CLIPPED = "pairs of products of 8-bit inputs and signed 8-bit weights are added in 16 bits, where they are clipped"
SATURATES_HERE = f"on this processor {_CLIPPED}"


def diagnose(model: QuantizedModel, inputs: Inputs, exported: OnnxModel) -> list[str]:
    """Return a line for each cause that was found.

    With the layers it moves, how far, and what to do.

    Args:
        model: what was exported, on the CPU and in evaluation mode.
        inputs: what both are given.
        exported: the file, whose outputs move when onnxruntime optimizes it.

    Raises:
        ExportError: onnxruntime does not run the file in one of the ways that are tried.
    """
    runs = _Runs(model, inputs, exported)
    if not runs.is_the_same_graph():
        return [f"onnxruntime's optimizations move the outputs for a reason that is not known; {_AS_TRAINED}"]
    lines = []
    settings: Mapping[str, str] = {}
    values = runs.values()
    left = runs.differences(values)
    exact = runs.values(settings=WITHOUT_SATURATION)
    unclipped = runs.differences(exact)
    if clipped := _agreeing(left, unclipped):
        lines.append(f"{SATURATES_HERE}: {_told(left, clipped)}; {_NARROWER}")
        settings, values, left = WITHOUT_SATURATION, exact, unclipped
    rounded = _agreeing(left, runs.differences(values, with_int32_biases(model)))
    wrapped = _agreeing(left, runs.differences(values, with_int32_sums(model))) - rounded
    lines += _int32_lines(model, left, rounded, wrapped)
    floating = runs.differences(runs.values(settings=settings, disabled=[BIASES_AND_WEIGHTS]))
    if narrowed := _agreeing(left, floating) - rounded - wrapped:
        lines.append(
            f"onnxruntime's optimizations round weights that stay in float to 8 bits: {_told(left, narrowed)}; "
            f"{_AS_TRAINED}"
        )
    rest = {name for name, one in left.items() if not one.largest <= TOLERANCE} - rounded - wrapped - narrowed
    lines += _unexplained(left, rest, runs) if rest else []
    return lines or [
        "onnxruntime's optimizations add up in another order: on equal inputs every layer is within one step, but "
        "values on the edge between two steps fall to the other side, and later layers carry that on"
    ]


def foresee_saturation(model: QuantizedModel, inputs: Inputs, exported: OnnxModel) -> list[str]:
    """Return a line if a layer is off on processors without VNNI.

    By more than a step, on x86; arguments as above.

    Raises:
        ExportError: onnxruntime does not run the file.
    """
    saturated = with_saturation(model, exported)
    if saturated is None:
        return []
    values = execute(exported.data, inputs, also=exported.inner)
    differences = layer_differences(saturated, inputs, exported, values)
    off = {name for name, one in differences.items() if one.largest > TOLERANCE}
    if not off:
        return []
    return [f"on x86 processors without VNNI {_CLIPPED}: there {_told(differences, off)}; {_NARROWER}"]


def _int32_lines(
    model: QuantizedModel, left: Differences, rounded: Collection[str], wrapped: Collection[str]
) -> list[str]:
    lines = []
    overflowing = overflowing_biases(model)
    if overflowing and (rounded or wrapped):
        where = "; ".join(f"{path!r}, channels {listed(map(str, found))}" for path, found in overflowing.items())
        lines.append(
            f"biases do not fit into int32 as multiples of input step × weight step ({where}); {_AS_TRAINED}"
        )
    elif rounded:
        lines.append(
            f"onnxruntime's optimizations round biases to multiples of input step × weight step: "
            f"{_told(left, rounded)}; more bits make these steps finer; {_AS_TRAINED}"
        )
    if wrapped:
        lines.append(f"sums of products overflow int32: {_told(left, wrapped)}; fewer bits, or {_AS_TRAINED}")
    return lines


def _unexplained(left: Differences, rest: Collection[str], runs: _Runs) -> list[str]:
    whole = runs.differences(runs.values(settings=WITHOUT_INTEGERS))
    if all(whole[name].largest <= TOLERANCE for name in rest):
        return [
            f"onnxruntime's integer kernels compute something else, unexplained: {_told(left, rest)}; {_AS_TRAINED}"
        ]
    return [
        f"onnxruntime's optimizations compute something else, unexplained: {_told(left, rest)}; to compute what was "
        "trained, set graph_optimization_level to ORT_DISABLE_ALL"
    ]


class _Runs:
    """One file, run optimized in several ways, and compared layer by layer."""

    def __init__(self, model: QuantizedModel, inputs: Inputs, exported: OnnxModel) -> None:
        self._model, self._inputs, self._exported = model, inputs, exported

    def is_the_same_graph(self) -> bool:
        """Return whether the outputs are the same when inner values are asked for too."""
        plain, asked = execute(self._exported.data, self._inputs, optimized=True), self.values()
        return all(torch.equal(plain[name].nan_to_num(), asked[name].nan_to_num()) for name in self._exported.outputs)

    def values(
        self, *, settings: Mapping[str, str] | None = None, disabled: Sequence[str] = ()
    ) -> Mapping[str, Tensor]:
        """Return outputs and inner values, all optimizations on but the disabled ones."""
        return execute(
            self._exported.data,
            self._inputs,
            also=self._exported.inner,
            optimized=True,
            settings=settings,
            disabled=disabled,
        )

    def differences(self, values: Mapping[str, Tensor], model: QuantizedModel | None = None) -> Differences:
        """Return how far every layer is from ``model``, or from what was exported."""
        return layer_differences(model or self._model, self._inputs, self._exported, values)


def _agreeing(before: Differences, after: Differences) -> set[str]:
    """Return the layers that differ before but hardly after.

    After, at most in a quarter as many elements and by one step.
    """
    return {
        name
        for name, one in before.items()
        if one.share > 0 and after[name].largest <= TOLERANCE and after[name].share <= one.share / 4
    }


def _told(differences: Differences, names: Collection[str]) -> str:
    """Return the layer that is farthest off, how far, and how many others are off."""
    first = max(names, key=lambda name: differences[name].largest)
    worst, others = differences[first], len(names) - 1
    more = f", and {others} more layer{'s' * (others > 1)}" if others else ""
    share = f"{100 * worst.share:.3g} % of its elements"
    return f"layer {first!r} is off by up to {worst.largest:.2g} steps in {share}{more}"
