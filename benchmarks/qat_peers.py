"""Who prepares a network for quantization-aware training: hessrank, and torchao and MQBench where they are installed.

All quantize weights to 8 bits per channel and activations to 8 bits per tensor, calibrated on the inputs that are
then trained on, and let batch norms learn. How many tensors each of them quantizes differs, so that is counted.
"""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn

import hessrank
from hessrank.quant.policy import Policy
from hessrank.quant.prepare.mqbench.library import load_mqbench

Maker = Callable[[nn.Module, Tensor], nn.Module]
"""From a network and its inputs, both left as they are, to a calibrated copy in training mode."""

_ATEN = torch.ops.aten
_WEIGHTS = {_ATEN.conv2d.default: 0, _ATEN.linear.default: 0, _ATEN.conv_transpose2d.input: 1}  # axis of the channels
_SUMS = {_ATEN.add.Tensor, _ATEN.add_.Tensor, _ATEN.batch_norm.default}
_FUSED = {_ATEN.batch_norm.default, _ATEN.relu.default, _ATEN.relu_.default, _ATEN.leaky_relu.default}
_RESULTS = {_ATEN.mul.Tensor, _ATEN.sigmoid.default, _ATEN.adaptive_avg_pool2d.default, *_WEIGHTS, *_SUMS, *_FUSED}


def hessrank_qat(method: str, backend: str = "hessrank") -> Maker:
    """Return how :func:`hessrank.prepare` does it with one method for everything."""
    policy = Policy.of({"extra_qconfig_dict": {"w_fakequantize": method, "a_fakequantize": method}})

    def make(model: nn.Module, x: Tensor) -> nn.Module:
        prepared: nn.Module = hessrank.prepare(model, policy, x, backend=backend, batch_size=len(x))
        return prepared.train()

    return make


def torchao_qat(*, same_places: bool = False, observing: bool = False) -> Maker:
    """Return how torchao's ``prepare_qat_pt2e`` does it.

    Args:
        same_places: quantize what hessrank quantizes; or else what torchao's ``X86InductorQuantizer`` does, which
            knows no transposed convolutions, products or gates.
        observing: keep the observers on in training, as they are by default; or else switch them off after
            calibration.
    """

    def make(model: nn.Module, x: Tensor) -> nn.Module:
        pt2e: Any = importlib.import_module("torchao.quantization.pt2e")
        steps: Any = importlib.import_module("torchao.quantization.pt2e.quantize_pt2e")
        exported = torch.export.export(copy.deepcopy(model).train(), (x,), strict=True).module()
        prepared: nn.Module = steps.prepare_qat_pt2e(exported, _annotator(same_places=same_places))
        pt2e.allow_exported_model_train_eval(prepared)
        prepared(x)
        if not observing:
            prepared.apply(pt2e.disable_observer)
        return prepared

    return make


def _annotator(*, same_places: bool) -> Any:
    """Return torchao's quantizer for x86, or one with its settings that annotates hessrank's places."""
    x86: Any = importlib.import_module("torchao.quantization.pt2e.quantizer.x86_inductor_quantizer")
    config = x86.get_default_x86_inductor_quantization_config(is_qat=True)
    if not same_places:
        return x86.X86InductorQuantizer().set_global(config)
    base: Any = importlib.import_module("torchao.quantization.pt2e.quantizer")

    class SamePlaces(base.Quantizer):  # type: ignore[misc]
        def annotate(self, model: fx.GraphModule) -> fx.GraphModule:
            for node in model.graph.nodes:
                note = base.QuantizationAnnotation(_annotated=True)
                if node.target in _WEIGHTS:
                    weight = replace(config.weight, ch_axis=_WEIGHTS[node.target])
                    note.input_qspec_map = {node.args[0]: None, node.args[1]: weight}
                if _leaves_a_kernel(node):
                    note.output_qspec = config.output_activation
                node.meta["quantization_annotation"] = note
            return model

        def validate(self, model: fx.GraphModule) -> None:
            pass

    return SamePlaces()


def _leaves_a_kernel(node: fx.Node) -> bool:
    """Return whether a node of torch.export's graph yields what an integer kernel would requantize."""
    if node.op != "placeholder" and (node.target not in _RESULTS or not node.meta["val"].is_floating_point()):
        return False
    readers = list(node.users)
    takes_in = node.target in _WEIGHTS or node.target in _SUMS
    return not (takes_in and len(readers) == 1 and readers[0].target in _FUSED)


def mqbench_qat(method: str) -> Maker:
    """Return how MQBench does it for TensorRT, by its own guide.

    Args:
        method: ``FixedFakeQuantize``, or its default for TensorRT, ``LearnableFakeQuantize``.
    """

    def make(model: nn.Module, x: Tensor) -> nn.Module:
        library = load_mqbench()
        config = {"extra_qconfig_dict": {"w_fakequantize": method, "a_fakequantize": method}}
        with library.quiet():
            platform = library.platform("Tensorrt")
            prepared: nn.Module = library.prepare(copy.deepcopy(model).train(), platform, config, freeze_bn=False)
            library.state.enable_calibration(prepared)
            with torch.no_grad():
                prepared(x)
            library.state.enable_quantization(prepared)
        return prepared.train()

    return make


def quantized_tensors(model: nn.Module, x: Tensor) -> tuple[int, int]:
    """Return how many activations and weights are fake-quantized in one forward pass."""
    counts = [0, 0]

    def count(module: nn.Module, *_: object) -> None:
        per_channel = getattr(module, "weight", getattr(module, "is_per_channel", False))
        counts[bool(per_channel)] += 1

    handles = [one.register_forward_hook(count) for one in model.modules() if _is_quantizer(one)]
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    return counts[0], counts[1]


def _is_quantizer(module: nn.Module) -> bool:
    return any(kind.__name__ in {"Quantizer", "FakeQuantizeBase"} for kind in type(module).__mro__)


OURS: dict[str, Maker] = {
    "hessrank fixed": hessrank_qat("fixed"),
    "hessrank lsq": hessrank_qat("lsq"),
}
PEERS: dict[str, dict[str, Maker]] = {
    "torchao": {
        "torchao X86, observing": torchao_qat(observing=True),
        "torchao X86": torchao_qat(),
        "torchao, hessrank's places, observing": torchao_qat(same_places=True, observing=True),
        "torchao, hessrank's places": torchao_qat(same_places=True),
    },
    "mqbench": {
        "MQBench TensorRT, learnable": mqbench_qat("LearnableFakeQuantize"),
        "MQBench TensorRT, fixed": mqbench_qat("FixedFakeQuantize"),
        "MQBench by hessrank, fixed": hessrank_qat("fixed", "mqbench"),
        "MQBench by hessrank, lsq": hessrank_qat("lsq", "mqbench"),
    },
}
"""By the package that they need."""


def installed() -> dict[str, Maker]:
    """Return what can run here; print a line for each package that is missing."""
    found = dict(OURS)
    for package, makers in PEERS.items():
        if importlib.util.find_spec(package) is None:
            print(f"{package} is not installed; left out: {'; '.join(makers)}")
        else:
            found |= makers
    return found
