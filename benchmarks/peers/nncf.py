"""NNCF's HAWQ: one Hessian-vector product of all weights together, cut up into layers.

Its estimator adds each product to a start value of *normal noise* where zeros are meant
(``sample_normal_like_params``), so that a trace has noise of its own, √n / number of samples (n elements). It is
measured as it is, and once more with zeros.
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.peers.adapter import Estimates, Sample
from benchmarks.peers.cases import Case


def prepare(*, from_zero: bool = False) -> Callable[[Case], Sample]:
    """Return how NNCF is asked; ``from_zero`` puts zeros where its start value is noise."""

    def bring(case: Case) -> Sample:
        module: Any = importlib.import_module("nncf.torch.quantization.hessian_trace")
        model = copy.deepcopy(case.model)
        wanted = only_weights(case, model)

        def loss(output: Any, target: Any, criterion: nn.Module) -> Tensor:
            result: Tensor = criterion(output, target)
            return result

        estimator = module.HessianTraceEstimator(model, loss, case.criterion, "cpu", loader(case), 1)
        if from_zero:
            handler = estimator._parameter_handler
            handler.sample_normal_like_params = lambda: [torch.zeros_like(p) for p in handler.parameters]

        def sample(count: int) -> Estimates:
            means = estimator.get_average_traces(max_iter=count, tolerance=0.0)
            return {name: [float(mean) * n] for (name, n), mean in zip(wanted.items(), means, strict=True)}

        return sample

    return bring


def only_weights(case: Case, model: nn.Module) -> dict[str, int]:
    """Freeze all but the layers' weights in a copy of the network; return their names and sizes in its order."""
    names = {f"{name}.weight": name for name in case.weights()}
    wanted = {}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in names)
        if name in names:
            wanted[names[name]] = parameter.numel()
    return wanted


def loader(case: Case) -> DataLoader[tuple[Tensor, ...]]:
    """Return the case's sample and target as a data loader."""
    return DataLoader(TensorDataset(case.x, case.target), batch_size=1)
