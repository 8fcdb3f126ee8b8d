"""Small networks quantized by hand, on grids that are known."""

import copy
from collections.abc import Callable
from dataclasses import asdict

import pytest
import torch
from torch import Tensor, fx, nn

from hessrank.network.weights import channel_axis
from hessrank.quant.prepare.model import META, Inserted, QuantizedModel
from hessrank.quant.prepare.modules import QUANTIZED, quantize_module
from hessrank.quant.quantizers import Quantizer, make_quantizer
from hessrank.quant.scheme import Scheme

Quantize = Callable[..., QuantizedModel]
_FUSED = (nn.ReLU, nn.LeakyReLU, nn.Sigmoid)
_OWN = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d, nn.Linear, nn.Embedding, *_FUSED)


def _extent(x: Tensor, axis: int | None) -> tuple[Tensor, Tensor]:
    rest = [dim for dim in range(x.ndim) if dim != axis]
    return (x.amin(), x.amax()) if axis is None else (x.amin(rest), x.amax(rest))


def _weights(model: fx.GraphModule, scheme: Scheme) -> list[Inserted]:
    shared: dict[int, tuple[str, Quantizer]] = {}
    rows = []
    for node in list(model.graph.nodes):
        module = model.get_submodule(str(node.target)) if node.op == "call_module" else None
        if type(module) not in QUANTIZED:
            continue
        axis = channel_axis(module) if scheme.per_channel else None
        channels = module.weight.shape[axis] if axis is not None else None
        made = make_quantizer("fixed", scheme, axis=axis, channels=channels)
        path, quantizer = shared.setdefault(id(module.weight), (f"{node.target}.weight_quantizer", made))
        norm_node = next(iter(node.users))
        norm = model.get_submodule(str(norm_node.target)) if norm_node.op == "call_module" else None
        if isinstance(norm, nn.BatchNorm2d):
            norm_node.replace_all_uses_with(node)
            model.graph.erase_node(norm_node)
        quantize_module(module, quantizer, norm if isinstance(norm, nn.BatchNorm2d) else None)
        quantizer.set_range(*_extent(module.folded()[0].detach(), axis))
        rows.append(Inserted(str(node.target), "weight", path, node.name, ""))
    return rows


def _kernel_ends(model: fx.GraphModule) -> list[fx.Node]:
    def of(node: fx.Node) -> nn.Module | None:
        return model.get_submodule(str(node.target)) if node.op == "call_module" else None

    ends = [node for node in model.graph.nodes if node.op == "placeholder" or isinstance(of(node), _OWN)]
    return [node for node in ends if not (len(node.users) == 1 and isinstance(of(next(iter(node.users))), _FUSED))]


class _Calibration(fx.Interpreter):
    def call_module(self, target, args, kwargs):
        module = self.module.get_submodule(target)
        if not isinstance(module, Quantizer):
            return super().call_module(target, args, kwargs)
        module.set_range(args[0].min(), args[0].max())
        return args[0]


@pytest.fixture
def quantize() -> Quantize:
    """Quantize a network's weights with one scheme, what its kernels give and its float inputs with another."""

    def build(model: nn.Module, inputs: Tensor, weights: str, activations: str) -> QuantizedModel:
        traced = fx.symbolic_trace(copy.deepcopy(model).eval())
        rows = _weights(traced, Scheme.parse(weights, Scheme(8)))
        layer_nodes = {}
        for node in _kernel_ends(traced):
            if node.op == "placeholder" and not inputs.is_floating_point():
                continue
            path = f"quantizers.{node.name}"
            traced.add_submodule(path, make_quantizer("fixed", Scheme.parse(activations, Scheme(8))))
            with traced.graph.inserting_after(node):
                call = traced.graph.call_module(path, (node,))
            node.replace_all_uses_with(call, delete_user_cb=lambda user, call=call: user is not call)
            layer = str(node.target) if str(node.target) not in layer_nodes else node.name
            layer_nodes[layer] = call.name
            rows.append(Inserted(layer, "activation", path, call.name, ""))
        traced.recompile()
        prepared = QuantizedModel(traced, traced.graph, type(model).__name__)
        prepared.meta[META] = {
            "inserted": [asdict(row) for row in rows],
            "unquantized": {},
            "layer_nodes": layer_nodes,
            "warnings": [],
            "freeze_bn": False,
        }
        prepared.set_quantizing(True)
        for _, quantizer in prepared.quantizers_by_path():
            quantizer.observing = False
        with torch.no_grad():
            _Calibration(prepared).run(inputs)
        return prepared.eval()

    return build
