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
    optimizer = _optimizer(_groups(student, others, settings), settings)
    if settings.schedule == "constant":
        return optimizer
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=max(1, total_steps))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _groups(student: nn.Module, others: nn.Module | None, settings: Settings) -> Groups:
    own = [parameter for module in student.modules() for parameter in _learned(module)]
    learned = {id(parameter) for parameter in own}
    frozen = {id(p) for module in student.modules() if _frozen_weight(module) for p in module.parameters()}
    quantizers = [parameter for parameter in own if id(parameter) not in frozen]
    weights = [p for p in student.parameters() if id(p) not in learned and p.requires_grad]
    if not weights:
        raise ModelError("nothing to train: all weights of the network are frozen (requires_grad is False)")
    projections = [] if others is None else list(others.parameters())
    groups: Groups = [{"params": [*weights, *projections], "weight_decay": settings.weight_decay}]
    if quantizers:
        groups.append({"params": quantizers, "lr": settings.quantizer_learning_rate, "weight_decay": 0.0})
    return groups


def _learned(module: nn.Module) -> list[nn.Parameter]:
    """Return what a quantizer learns; nothing for other modules."""
    return list(module.parameters(recurse=False)) if isinstance(module, Quantizer) else []


def _frozen_weight(module: nn.Module) -> bool:
    """Return whether a module's weight is quantized and frozen: its quantizer is frozen with it."""
    return isinstance(module, QuantizedWeight) and not module.weight.requires_grad


def _optimizer(groups: Groups, settings: Settings) -> torch.optim.Optimizer:
    rate = settings.learning_rate
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=0.9)
    kind = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=rate)
