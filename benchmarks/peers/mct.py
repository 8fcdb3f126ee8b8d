"""Sony MCT's Hessian service: ‖Jᵀv‖² by one backward pass for each activation and probe.

MCT reads the network, folds batch norms and attaches its target platform, as its own quantization does; the service
then is asked for the scores of all tensors but the outputs. It sums over outputs without the loss's 2/m, which is put
back.
"""

from __future__ import annotations

import contextlib
import importlib
import io
from typing import Any

import torch

from benchmarks.peers.adapter import Estimates, Sample
from benchmarks.peers.cases import Case
from hessrank.network.frozen_model import freeze
from hessrank.network.network import Network

_CORE = "model_compression_toolkit.core"
_FOLDED = "_bn"  # what MCT adds to the name of a convolution that has swallowed its batch norm


def prepare(case: Case) -> Sample:
    """Bring the network into MCT's graph, and find out what its nodes are called here."""
    _declare_torchvision_operators()
    toolkit: Any = importlib.import_module("model_compression_toolkit")
    implementation = importlib.import_module(f"{_CORE}.pytorch.pytorch_implementation").PytorchImplementation()
    graph = _read(toolkit, implementation, case)
    names = _names(case)
    outputs = {one.node.name for one in graph.get_outputs()}
    nodes = [
        node
        for node in graph.get_topo_sorted_nodes()
        if node.name in names and node.name not in outputs and not node.reuse
    ]
    hessian: Any = importlib.import_module(f"{_CORE}.common.hessian")
    scale = 2 / case.target.numel() if case.loss == "self-mse" else 1.0

    def sample(count: int) -> Estimates:
        service = hessian.HessianInfoService(graph, implementation, num_iterations_for_approximation=count)
        request = hessian.HessianScoresRequest(
            mode=hessian.HessianMode.ACTIVATION,
            granularity=hessian.HessianScoresGranularity.PER_TENSOR,
            target_nodes=nodes,
            data_loader=[[case.x.clone()]],
            n_samples=None,
        )
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
            scores = service.fetch_hessian(request, force_compute=True)
        return {names[name]: [scale * float(score.sum())] for name, score in scores.items()}

    return sample


def _read(toolkit: Any, implementation: Any, case: Case) -> Any:
    """Return MCT's graph of the network, prepared as ``mct.ptq.pytorch_post_training_quantization`` does."""
    runner = importlib.import_module(f"{_CORE}.graph_prep_runner")
    information = importlib.import_module(f"{_CORE}.pytorch.default_framework_info").DEFAULT_PYTORCH_INFO
    settings = importlib.import_module(f"{_CORE}.common.quantization.quantization_config").QuantizationConfig()
    platforms = "model_compression_toolkit.target_platform_capabilities"
    load = importlib.import_module(f"{platforms}.tpc_io_handler").load_target_platform_capabilities
    attach = importlib.import_module(f"{platforms}.targetplatform2framework.attach2pytorch").AttachTpcToPytorch()
    with contextlib.redirect_stdout(io.StringIO()):
        return runner.graph_preparation_runner(
            case.model,
            lambda: iter([[case.x.numpy()]]),
            settings,
            information,
            implementation,
            attach.attach(load(toolkit.get_target_platform_capabilities())),
        )


def _names(case: Case) -> dict[str, str]:
    """Return hessrank's names by MCT's, which are torch.fx's."""
    with freeze(case.model):
        network = Network(case.model, case.batch)
    names = {}
    for layer in network.layers:
        names[network.nodes[layer.name].name] = layer.name
        if layer.kind.startswith("BatchNorm"):
            names[network.nodes[network.inputs[layer.name][0]].name + _FOLDED] = layer.name
    return names


def _declare_torchvision_operators() -> None:
    """Declare two operators of torchvision, which MCT imports and which torch's CPU build does not bring."""
    for name in ("nms", "qnms"):
        with contextlib.suppress(RuntimeError):  # there already
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float threshold) -> Tensor")
