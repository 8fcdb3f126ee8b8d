"""MQBench's ``hessian_per_layer_acti``: HAWQ-V2's loop over the outputs of convolutions and linear layers.

What is done so that it runs: its ``.cuda()`` leaves tensors where they are, and the cross-entropy that is written
into it becomes the case's loss. Its stopping rule divides by the signed trace and would stop on a negative one: it
is switched off. Its hooks are never removed: each call has a copy of the network.
"""

from __future__ import annotations

import copy
import importlib
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from benchmarks.peers.adapter import Estimates, Sample
from benchmarks.peers.cases import Case

_NEVER = -float("inf")  # no ratio is below this


def prepare(case: Case) -> Sample:
    """Copy the network for each call, and let MQBench run its loop."""
    module: Any = importlib.import_module("mqbench.mix_precision.hessian_per_layer")

    def stay(tensor: Tensor) -> Tensor:
        return tensor

    def sample(count: int) -> Estimates:
        model = copy.deepcopy(case.model)
        with (
            mock.patch.object(torch.Tensor, "cuda", stay),
            mock.patch.object(torch.nn, "CrossEntropyLoss", return_value=case.criterion),
        ):
            loop = module.hessian_per_layer_acti(model, case.criterion, data=(case.x, case.target), cuda=False)
            traces = loop.layer_trace(maxIter=count, tol=_NEVER)
        return {name: [float(trace)] for name, trace in traces.items()}

    return sample
