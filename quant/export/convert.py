"""Make a prepared model ready for export.

Weights become integers, quantizers become one operator each.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call

from hessrank.errors import HessrankError
from hessrank.models.wrappers import copy_network
from hessrank.quant.export.errors import ExportError
from hessrank.quant.export.integers import along, integer_type, integers_of, needs_clip
from hessrank.quant.export.ops import dequantize, quantize_dequantize
from hessrank.quant.export.plain_names import HOLDER, OWN_NAMES, give_plain_names
from hessrank.quant.export.weight_grids import weight_grids
from hessrank.quant.prepare.model import QuantizedModel
from hessrank.quant.prepare.modules import QUANTIZED, QuantizedWeight
from hessrank.quant.quantizers import Grid, Quantizer
from hessrank.text import dtype_text

LEAST_ACTIVATION_BITS = 8
"""Activations of 4 bits are clipped and held in 8: onnxruntime moves a quantizer past a pooling, which has no 4-bit
kernel, and then refuses the model."""
_PLAIN = {quantized: plain for plain, quantized in QUANTIZED.items()}


def reference(prepared: QuantizedModel) -> QuantizedModel:
    """Return a copy to measure against: on the CPU, in evaluation mode.

    Raises:
        ExportError: it is not in float32, it is still calibrating, or nothing of it is quantized.
    """
    model = copy_network(prepared).cpu().eval()
    assert isinstance(model, QuantizedModel)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            kind = dtype_text(tensor.dtype)
            raise ExportError(f"{name!r} is {kind}: ONNX export takes float32; convert the model with .float()")
    quantizers = [quantizer for _, quantizer in model.quantizers_by_path()]
    if any(quantizer.observing for quantizer in quantizers):
        raise ExportError("the model is still being calibrated: its quantizers have no range yet")
    if not any(quantizer.enabled for quantizer in quantizers):
        raise ExportError("nothing is quantized: switch the quantizers on with set_quantizing(True)")
    return model


def exportable(model: QuantizedModel) -> QuantizedModel:
    """Return a copy of ``model`` with integers and operators for its quantizers.

    Args:
        model: from :func:`reference`.

    Raises:
        ExportError: a quantizer's grid does not fit; the message names the layer.
    """
    model = copy.deepcopy(model)
    _fold_weights(model)
    for node in [node for node in model.graph.nodes if node.op == "call_module"]:
        module = model.get_submodule(str(node.target))
        if isinstance(module, Quantizer):
            path = f"{HOLDER}.{node.name}"
            model.add_submodule(path, _Activation(module, node.name) if module.enabled else nn.Identity())
            node.target = path
    model.meta[OWN_NAMES] = give_plain_names(model)
    model.recompile()
    return model


def _fold_weights(model: QuantizedModel) -> None:
    grids, _ = weight_grids(model)
    stored: dict[tuple[int, int], _IntegerWeight] = {}  # a weight that modules share is stored once
    done: dict[int, nn.Module] = {}
    for path, module in list(model.named_modules(remove_duplicate=False)):
        if not isinstance(module, QuantizedWeight) or not module.weight_quantizer.enabled:
            continue
        if id(module) not in done:
            key = (id(module.weight_quantizer), id(module.weight if module.batch_norm is None else module))
            weight, bias = module.folded()
            if key not in stored:
                try:
                    grid = grids[module.weight_quantizer]
                    stored[key] = _IntegerWeight(module.weight_quantizer, weight.detach(), grid)
                except HessrankError as error:
                    raise ExportError(f"weight of {path!r}: {error}") from error
            done[id(module)] = _Folded(module, bias, stored[key])
        model.set_submodule(path, done[id(module)])


class _Activation(nn.Module):
    """A quantizer of an activation, at one node."""

    def __init__(self, quantizer: Quantizer, node: str) -> None:
        super().__init__()
        grid = quantizer.grid()
        self.quantizer, self._grid, self._node = quantizer, grid, node
        try:
            kind = integer_type(grid, least_bits=LEAST_ACTIVATION_BITS)
        except ExportError as error:
            raise ExportError(f"quantizer of {node!r}: {error}") from error
        self._kind, self._clips = int(kind), needs_clip(grid, kind)
        _register(self, grid)
        scale, zero_point = self.get_buffer("scale"), self.get_buffer("zero_point")
        self.register_buffer("low", (grid.quant_min - zero_point) * scale)
        self.register_buffer("high", (grid.quant_max - zero_point) * scale)

    def forward(self, x: Tensor) -> Tensor:
        x, axis = self.quantizer.to_grid(x), self._grid.axis
        low, high = along(self.low, axis, x.ndim), along(self.high, axis, x.ndim)  # type: ignore[arg-type]
        y: Tensor = quantize_dequantize(
            x,
            self.scale,
            self.zero_point,
            low,
            high,
            self._kind,
            -1 if axis is None else axis % x.ndim,
            self._clips,
            self._node,
        )
        return y


class _IntegerWeight(nn.Module):
    """A weight as integers."""

    def __init__(self, quantizer: Quantizer, weight: Tensor, grid: Grid) -> None:
        super().__init__()
        self._kind, self._axis = int(integer_type(grid)), -1 if grid.axis is None else grid.axis % weight.ndim
        self.register_buffer("integers", integers_of(quantizer, weight, grid))
        _register(self, grid)

    def forward(self) -> Tensor:
        weight: Tensor = dequantize(self.integers, self.scale, self.zero_point, self._kind, self._axis)
        return weight


class _Folded(nn.Module):
    """A layer whose weight comes from integers, its batch norm folded in.

    A convolution, a linear layer or an embedding.
    """

    def __init__(self, module: QuantizedWeight, bias: Tensor | None, weight: _IntegerWeight) -> None:
        super().__init__()
        plain = copy.copy(module)
        plain.__class__ = _PLAIN[type(module)]  # type: ignore[assignment]
        plain._modules, plain._buffers = {}, {}
        plain._parameters = {"weight": None, "bias": None if bias is None else nn.Parameter(bias.detach())}
        self.plain, self.quantized = plain, weight

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return functional_call(self.plain, {"weight": self.quantized()}, args, kwargs)


def _register(module: nn.Module, grid: Grid) -> None:
    shape = () if grid.axis is None else (-1,)
    module.register_buffer("scale", grid.scale.detach().to(torch.float32).reshape(shape))
    module.register_buffer("zero_point", grid.zero_point.detach().to(torch.int32).reshape(shape))


def quantizer_at(model: QuantizedModel, node: fx.Node) -> Quantizer | None:
    """Return the quantizer that a node calls, if it calls one that is on."""
    module = model.get_submodule(str(node.target)) if node.op == "call_module" else None
    return module if isinstance(module, Quantizer) and module.enabled else None
