"""The optimizer: weights at one rate, what quantizers learn at another."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from hessrank.distill.run_file import Settings
from hessrank.errors import ModelError
from hessrank.quant.prepare.modules import QuantizedWeight
from hessrank.quant.quantizers import Quantizer

Groups = list[dict[str, Any]]


def make_optimizer(student: nn.Module, others: nn.Module | None, settings: Settings, total_steps: int) -> Any:
    """Return an optimizer with its schedule in Lightning's form.

    Args:
        student: its quantizers' parameters get ``quantizer_learning_rate`` and no weight decay.
        others: trained along with the weights (projections); None for nothing.
        settings: which optimizer, at which rates.
        total_steps: what the schedule spans.

    Raises:
        ModelError: all weights are frozen.
    """
    groups, rate = _groups(student, others, settings), settings.learning_rate
    optimizer: torch.optim.Optimizer
    if settings.optimizer == "sgd":
        optimizer = torch.optim.SGD(groups, lr=rate, momentum=0.9)
    else:
        optimizer = (torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam)(groups, lr=rate)
    if settings.schedule == "constant":
        return optimizer
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=max(1, total_steps))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _groups(student: nn.Module, others: nn.Module | None, settings: Settings) -> Groups:
    """Return the parameters in groups: weights and projections, and what quantizers learn, unless frozen."""
    modules = list(student.modules())
    own = [p for module in modules if isinstance(module, Quantizer) for p in module.parameters(recurse=False)]
    frozen_layers = (m for m in modules if isinstance(m, QuantizedWeight) and not m.weight.requires_grad)
    frozen = {id(p) for layer in frozen_layers for p in layer.parameters()}  # its quantizer is frozen with it
    quantizers = [parameter for parameter in own if id(parameter) not in frozen]
    learned = {id(parameter) for parameter in own}
    weights = [p for p in student.parameters() if id(p) not in learned and p.requires_grad]
    if not weights:
        raise ModelError("nothing to train: all weights of the network are frozen (requires_grad is False)")
    projections = [] if others is None else list(others.parameters())
    groups: Groups = [{"params": [*weights, *projections], "weight_decay": settings.weight_decay}]
    if quantizers:
        groups.append({"params": quantizers, "lr": settings.quantizer_learning_rate, "weight_decay": 0.0})
    return groups
