"""Neural Compressor's HAWQ metric: one Hessian-vector product of all tensors together, cut up into layers.

The part for weights is NNCF's, with the same noise in its start value. The part for activations takes what goes
*into* each layer with a weight. It fuses a network first, unless it is traced already: a traced one is given, so that
the weights are the network's own.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import io
import types
from typing import Any

import torch

from benchmarks.peers.adapter import Estimates, Sample
from benchmarks.peers.cases import Case
from benchmarks.peers.nncf import loader, only_weights
from hessrank.network.frozen_model import freeze
from hessrank.network.network import Network

_NEVER = -float("inf")  # no ratio is below this


def prepare_weights(case: Case) -> Sample:
    """Ask for the traces of the weights."""
    metric = _metric(case)
    sizes = only_weights(case, metric.model)
    metric.get_params()

    def sample(count: int) -> Estimates:
        metric.max_iter = count
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
            means = metric.get_weight_traces(1)
        return {name: [means[name] * n] for name, n in sizes.items()}

    return sample


def prepare_activations(case: Case) -> Sample:
    """Ask for the traces of the layers' inputs."""
    with freeze(case.model):
        network = Network(case.model, case.batch)
        sizes: dict[str, int] = {}
        network.run(case.batch, lambda layer, call, value: sizes.update({layer.name: value.numel()}))
    read_by = {name: network.inputs[name][0] for name in case.weights()}

    def sample(count: int) -> Estimates:
        metric = _metric(case)
        metric.max_iter = count
        found = metric.get_act_traces(1)
        return {read_by[name]: [float(found[name]) * sizes[read_by[name]]] for name in read_by if name in found}

    return sample


def _metric(case: Case) -> Any:
    module: Any = importlib.import_module("neural_compressor.adaptor.torch_utils.hawq_metric")
    traced = torch.fx.symbolic_trace(copy.deepcopy(case.model)).eval()
    metric = module.HessianTrace(types.SimpleNamespace(model=traced), loader(case), None, criterion=case.criterion)
    metric.tolerance = _NEVER
    return metric
