"""The same policy executed by MQBench, for whoever trains with it.

MQBench has no bits by layer. What works: let it insert its fake-quantizers into a copy of the model, then
replace each by one of the bits, scheme, method and observer that the policy gives that tensor. The platform
only says where MQBench puts quantizers; what they do is the policy's.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
import torch
from torch import fx, nn

from hessrank.data.samples import as_samples
from hessrank.network.sample_batches import SampleBatches
from hessrank.out_of_memory import explain_memory_errors
from hessrank.quant.policy import Policy, place_policy_quantizers, require, resolve
from hessrank.quant.prepare.model import META, Inserted
from hessrank.quant.prepare.mqbench.execution import Execution
from hessrank.quant.prepare.mqbench.library import Library, load_mqbench
from hessrank.quant.prepare.mqbench.quantizers import read_back
from hessrank.quant.prepare.tracing import graph_of

DEFAULT_PLATFORM = "Tensorrt"
"""Its rule (inputs of convolutions, linear layers, additions, products, poolings) is the nearest to ours."""

CALIBRATION_SAMPLES = 32


def prepare_mqbench(
    model: nn.Module,
    policy: Policy,
    calibration_data: Any,
    *,
    platform: str = DEFAULT_PLATFORM,
    freeze_bn: bool = True,
    num_samples: int = CALIBRATION_SAMPLES,
    batch_size: int = 1,
) -> fx.GraphModule:
    """Return a calibrated copy of ``model`` with MQBench's fake-quantizers.

    Set as ``policy`` says.

    Args:
        model: any network that torch.fx can trace; untouched.
        policy: the policy.
        calibration_data: what the ranges are taken from, in any form that :func:`hessrank.rank` takes.
        platform: name of a ``BackendType``: its rules say where MQBench puts quantizers; what the policy names
            besides is added where the platform listens to ``additional_node_name``.
        freeze_bn: keep batch norms on their running statistics in training too, as MQBench does by default.
        num_samples: samples to calibrate with, from the front.
        batch_size: samples run together.

    Returns:
        MQBench's ``GraphModule``, in the mode (train or eval) of ``model``. :func:`describe` lists what is
        quantized, :func:`unquantized` what is not, though the policy may ask for it.

    Raises:
        MQBenchError: MQBench is not installed, or has no such method, observer or scheme.
        HessrankError: the model cannot be traced, the policy does not fit it, or the data does not work.
    """
    library = load_mqbench()
    batches = SampleBatches(as_samples(calibration_data, num_samples), model, batch_size, needs_target=False)
    with explain_memory_errors():
        one = batches.batch(0)
        graph = graph_of(model, one, batches)
        idle = require(policy, graph)
        placement = place_policy_quantizers(policy, graph)
        execution = Execution(library, model, one, graph, placement, resolve(policy, graph, placement), platform)
        module = execution.run(freeze_bn=freeze_bn)
        module.meta[META]["warnings"] = [str(finding) for finding in idle] + execution.warnings
        calibrate(library, module, batches)
    return module.train(model.training)


def calibrate(library: Library, module: fx.GraphModule, batches: SampleBatches) -> None:
    """Calibrate MQBench's observers on data, then switch quantization on.

    They are shown the data with quantization off.

    Args:
        library: MQBench.
        module: what it prepared; its mode is kept.
        batches: the samples.
    """
    training = module.training
    with library.quiet(), torch.no_grad():
        library.state.enable_calibration(module)
        module.eval()
        for part in module.modules():
            if isinstance(part, library.base):
                part.train()  # a DSQFakeQuantize observes in training mode only
        batches.for_each(lambda batch: module(*batch.args, **batch.kwargs))
        library.state.enable_quantization(module)
        for part in module.modules():
            if isinstance(part, library.fake_quantizers["PACTFakeQuantize"]):
                part.enable_observer()  # it clips, and its threshold has a gradient, only while it observes
    module.train(training)


def describe(prepared: fx.GraphModule) -> pd.DataFrame:
    """Return one row a quantized tensor, read back from what MQBench works with.

    Columns: layer, tensor, bits, scheme, observer, method, scale (the largest of a channel's), node, reason.
    """
    rows = [Inserted(**row) for row in prepared.meta[META]["inserted"]]
    return pd.DataFrame(
        [
            {"layer": one.layer, "tensor": one.tensor}
            | read_back(prepared.get_submodule(one.quantizer))
            | {"node": one.node, "reason": one.reason}
            for one in rows
        ]
    )


def unquantized(prepared: fx.GraphModule) -> dict[str, str]:
    """Return the tensors that stay as they are, and why.

    Among them what MQBench cannot quantize.
    """
    return dict(prepared.meta[META]["unquantized"])
