"""Prepare a model: model and policy in, a model that obeys the policy out.

Example:
    Two bits over [0, 3] leave 0, 1, 2 and 3; the input of 1.75 is seen as 2:

    >>> import torch
    >>> import hessrank
    >>> network = torch.nn.Sequential(torch.nn.Linear(1, 1, bias=False))
    >>> _ = torch.nn.init.ones_(network[0].weight)
    >>> policy = hessrank.Policy.of({"extra_quantizer_dict": {"special_layer": {"input_layer": 2}}})
    >>> prepared = hessrank.prepare(network, policy, torch.tensor([[0.0], [3.0]]))
    >>> network(torch.tensor([[1.75]])).item(), round(prepared(torch.tensor([[1.75]])).item(), 4)
    (1.75, 2.0)
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, overload

import torch
from torch import fx, nn

from hessrank.data.samples import as_samples
from hessrank.errors import ModelError, OptionError, unknown_name
from hessrank.models.wrappers import unwrap, without_wrappers
from hessrank.network.layer_survey import check_weights
from hessrank.network.sample_batches import SampleBatches
from hessrank.out_of_memory import explain_memory_errors
from hessrank.quant.policy import Policy, place_policy_quantizers, require, resolve
from hessrank.quant.prepare.calibration import calibrate
from hessrank.quant.prepare.insertion import Insertion
from hessrank.quant.prepare.model import META, QuantizedModel
from hessrank.quant.prepare.tracing import trace

BACKENDS = ("hessrank", "mqbench")
CALIBRATION_SAMPLES = 32


@overload
def prepare(
    model: nn.Module,
    policy: Policy | str | Path,
    calibration_data: Any,
    *,
    backend: Literal["hessrank"] = "hessrank",
    freeze_bn: bool = False,
    num_samples: int = CALIBRATION_SAMPLES,
    batch_size: int = 1,
) -> QuantizedModel: ...
@overload
def prepare(
    model: nn.Module,
    policy: Policy | str | Path,
    calibration_data: Any,
    *,
    backend: str,
    freeze_bn: bool = False,
    num_samples: int = CALIBRATION_SAMPLES,
    batch_size: int = 1,
) -> fx.GraphModule: ...
def prepare(
    model: nn.Module,
    policy: Policy | str | Path,
    calibration_data: Any,
    *,
    backend: str = "hessrank",
    freeze_bn: bool = False,
    num_samples: int = CALIBRATION_SAMPLES,
    batch_size: int = 1,
) -> fx.GraphModule:
    """Return a copy of ``model`` that computes and trains as a policy asks.

    With quantized weights and activations.

    Args:
        model: any network that torch.fx can trace; untouched.
        policy: the policy, or the path of its file.
        calibration_data: what the ranges are taken from, in any form that :func:`hessrank.rank` takes.
        backend: ``hessrank``, or ``mqbench`` to have MQBench execute the policy (it must be installed).
        freeze_bn: keep batch norms on their running statistics in training too.
        num_samples: samples to calibrate with, from the front.
        batch_size: samples run together; the observer ``moving-average`` averages over batches.

    Returns:
        a :class:`QuantizedModel`, a torch.fx ``GraphModule`` in the mode (train or eval) of ``model``; of the
        backend ``mqbench``, what MQBench makes.

    Raises:
        HessrankError: the policy does not fit the model, the model cannot be traced, or the data does not work.
    """
    if backend not in BACKENDS:
        raise unknown_name("backend", backend, BACKENDS)
    if batch_size < 1:
        raise OptionError(f"batch_size is {batch_size}: it should be 1 or more")
    policy, model = read_policy(policy), unwrap(model)
    _check_model(model)
    if backend == "mqbench":
        from hessrank.quant.prepare.mqbench.prepare_mqbench import prepare_mqbench  # noqa: PLC0415 - MQBench need not be installed

        with without_wrappers(model) as network:
            return prepare_mqbench(
                network, policy, calibration_data, freeze_bn=freeze_bn, num_samples=num_samples, batch_size=batch_size
            )
    batches = SampleBatches(as_samples(calibration_data, num_samples), model, batch_size, needs_target=False)
    with explain_memory_errors(), torch.random.fork_rng(devices=[]):
        traced = trace(model, batches.batch(0), batches)
        idle = require(policy, traced.graph)
        placement = place_policy_quantizers(policy, traced.graph)
        insertion = Insertion(traced, placement, resolve(policy, traced.graph, placement))
        insertion.run()
        prepared = QuantizedModel(traced.module, traced.module.graph, type(model).__name__)
        prepared.meta[META] = {
            "inserted": [asdict(one) for one in insertion.inserted],
            "unquantized": insertion.unquantized,
            "layer_nodes": insertion.layer_nodes,
            "warnings": [*(str(finding) for finding in idle), *traced.notes],
            "freeze_bn": freeze_bn,
        }
        calibrate(prepared, batches, traced.axes)
    return prepared.train() if model.training and freeze_bn else prepared


def read_policy(policy: Any) -> Policy:
    """Return a policy, or the one in the file of a path.

    Raises:
        OptionError: it is neither.
        PolicyError: the file cannot be read.
    """
    if not isinstance(policy, Policy | str | Path):
        raise OptionError(f"a {type(policy).__name__} is no policy: give a Policy or the path of its file")
    return policy if isinstance(policy, Policy) else Policy.read(policy)


def _check_model(model: Any) -> None:
    if isinstance(model, QuantizedModel):
        raise ModelError("the model is quantized already: give the float model that it was made from")
    if not isinstance(model, nn.Module) or isinstance(model, torch.jit.ScriptModule):
        raise ModelError(f"a {type(model).__name__} cannot be quantized: give the torch.nn.Module it was made from")
    if any(nn.parameter.is_lazy(parameter) for parameter in model.parameters()):
        raise ModelError("the model has lazy layers without weights yet: run it once on data before quantizing it")
    check_weights(model)
