"""The prepared model, which trains and knows what was inserted where.

It is a torch.fx graph module.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import pandas as pd
from torch import fx
from torch.fx.graph_module import reduce_graph_module
from torch.nn.modules.batchnorm import _BatchNorm

from hessrank.quant.layer_graph.quantizer_placement import IN_KERNEL
from hessrank.quant.prepare.modules import QuantizedWeight
from hessrank.quant.quantizers import Quantizer

META = "hessrank"
"""Where in a graph module's ``meta``, which copies carry on, lies what was done to it."""


@dataclass(frozen=True)
class Inserted:
    """One row of the table: a tensor and the quantizer it goes through.

    Attributes:
        layer: the layer whose tensor it is.
        tensor: ``input``, ``weight`` or ``activation``.
        quantizer: path of the quantizer in the model; tensors that share one have the same.
        node: name of the torch.fx node that calls it.
        reason: where its settings come from: a line of the policy, a tie, the default.
    """

    layer: str
    tensor: str
    quantizer: str
    node: str
    reason: str


class QuantizedModel(fx.GraphModule):
    """A network with fake-quantized weights and activations, as a policy has it.

    ``print(model)`` shows which.

    Parameters and buffers keep the names that they had in the float model, except a folded batch norm's
    (``conv1.batch_norm.weight``) and those at the top that the class itself needs (``graph.weight`` becomes
    ``graph_.weight``); quantizers of activations lie under ``quantizers``. Copy it with
    :func:`copy.deepcopy`; save and load its state dict, which refuses to load into another bit-width.
    """

    @property
    def inserted(self) -> tuple[Inserted, ...]:
        """What was inserted, in the order of execution.

        A layer's weight before its activation.
        """
        return tuple(Inserted(**row) for row in self.meta[META]["inserted"])

    @property
    def unquantized(self) -> Mapping[str, str]:
        """The tensors that stay as they are, and why."""
        return dict(self.meta[META]["unquantized"])

    @property
    def layer_nodes(self) -> Mapping[str, str]:
        """For every layer name, the torch.fx node whose value its readers see.

        Quantized if it is.
        """
        return dict(self.meta[META]["layer_nodes"])

    @property
    def warnings(self) -> tuple[str, ...]:
        """Entries of the policy that did nothing, and what of the float model is left out."""
        return tuple(self.meta[META]["warnings"])

    @property
    def freeze_bn(self) -> bool:
        """Whether batch norms keep their running statistics in training too."""
        return bool(self.meta[META]["freeze_bn"])

    def quantizers_by_path(self) -> Iterator[tuple[str, Quantizer]]:
        """Yield every quantizer once, with its path."""
        return ((path, module) for path, module in self.named_modules() if isinstance(module, Quantizer))

    def quantized_weights(self) -> Iterator[tuple[str, QuantizedWeight]]:
        """Yield every module with a quantized weight, with its path."""
        return ((path, module) for path, module in self.named_modules() if isinstance(module, QuantizedWeight))

    def set_quantizing(self, enabled: bool) -> None:
        """Switch all quantizers on or off.

        Off, the model computes what the float model does.
        """
        for _, quantizer in self.quantizers_by_path():
            quantizer.enabled = enabled

    def train(self, mode: bool = True) -> Self:
        """Set training or evaluation mode; frozen batch norms stay in evaluation mode."""
        super().train(mode)
        if META in self.meta and self.freeze_bn:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Say how it is pickled: as torch.fx does, but it comes back as what it was."""
        _, arguments = super().__reduce__()
        return _unpickled, (self.meta[META], *arguments)

    def table(self) -> pd.DataFrame:
        """Return one row a quantized tensor.

        Layer, tensor, bits, scheme, observer, method, scale, node, reason.

        ``scale`` is the step in units of the tensor, the largest of a channel's where there are several.
        """
        quantizers = dict(self.quantizers_by_path())
        return pd.DataFrame([_row(one, quantizers[one.quantizer]) for one in self.inserted])

    def __str__(self) -> str:
        frame = self.table()
        frame["scale"] = frame["scale"].map("{:.3g}".format)
        floating = [f"{name}: {why}" for name, why in self.unquantized.items() if not why.startswith(IN_KERNEL)]
        lines = [
            f"{len(frame)} tensors quantized",
            frame.to_string(index=False, justify="left"),
            f"{len(floating)} tensors stay in float",
            *floating,
            *self.warnings,
        ]
        return "\n".join(lines)


def _unpickled(told: dict[str, Any], *arguments: Any) -> QuantizedModel:
    """Make the model that was pickled, of what it told and of what torch.fx takes."""
    plain: Any = reduce_graph_module(*arguments)
    model = QuantizedModel(plain, plain.graph, plain.__class__.__name__)
    model.meta[META] = told
    return model


def _row(one: Inserted, quantizer: Quantizer) -> dict[str, Any]:
    scheme = quantizer.scheme
    return {
        "layer": one.layer,
        "tensor": one.tensor,
        "bits": scheme.bits,
        "scheme": scheme.word,
        "observer": quantizer.observer_name,
        "method": quantizer.method,
        "scale": float(quantizer.grid().scale.max()),
        "node": one.node,
        "reason": one.reason,
    }
