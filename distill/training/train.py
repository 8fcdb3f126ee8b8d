"""Training in Python: a model, a policy, data, and maybe a teacher.

Example:
    A weight of 3 on the levels 0 to 3, its two bits, should be 2: the loss has the slope 2, and half of it is a step.

    >>> import torch
    >>> import hessrank
    >>> network = torch.nn.Sequential(torch.nn.Linear(1, 1, bias=False))
    >>> _ = torch.nn.init.constant_(network[0].weight, 3.0)
    >>> policy = hessrank.Policy.of({"extra_quantizer_dict": {"special_layer": {"0": {"weight": 2}}}})
    >>> data = torch.ones(1, 1), torch.full((1, 1), 2.0)
    >>> how = {"loss": "mse", "optimizer": "sgd", "learning_rate": 0.5, "epochs": 1, "batch_size": 1}
    >>> result = hessrank.train(network, policy, data, say=lambda line: None, **how)
    >>> round(result.before["quantized"]["loss"], 4), round(result.best["loss"], 4)
    (1.0, 0.0)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor, nn
from torchmetrics import Metric

from hessrank.distill.run_file import Settings
from hessrank.distill.tasks.base import Task
from hessrank.distill.tasks.given import GivenTask
from hessrank.distill.teacher.loss_terms import hints_of
from hessrank.distill.training.callbacks.progress import Report
from hessrank.distill.training.inputs.devices import choose_devices, cpu_threads
from hessrank.distill.training.inputs.loaders import seeded
from hessrank.distill.training.inputs.task_data import first_samples, read_task_data
from hessrank.distill.training.networks import FloatNetwork, StartingNetworks, describe_student, make_student
from hessrank.distill.training.outputs.identity import identity_in_memory
from hessrank.distill.training.outputs.result import TrainResult
from hessrank.distill.training.outputs.run_folder import shared_folder, writing_folder
from hessrank.distill.training.plan import plan_training
from hessrank.distill.training.run import run_training
from hessrank.errors import ModelError
from hessrank.main_process import is_main_process
from hessrank.models.wrappers import copy_network, unwrap
from hessrank.quant.policy import Policy
from hessrank.quant.prepare import QuantizedModel
from hessrank.quant.prepare.prepare import read_policy
from hessrank.terminal import say


def train(
    model: nn.Module,
    policy: Policy | str | Path | None,
    data: Any,
    *,
    teacher: nn.Module | None = None,
    validation: Any = None,
    loss: str | Callable[[Any, Any], Tensor] = "cross-entropy",
    metrics: Mapping[str, Metric] | None = None,
    monitor: str | None = None,
    mode: Literal["max", "min"] | None = None,
    arch: str = "",
    arch_args: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    gpu_ids: Sequence[int] = (),
    say: Callable[[str], None] = say,
    progress: Report | None = None,
    **settings: Any,
) -> TrainResult:
    """Quantize ``model`` as a policy says and train it, with a teacher for the layers that the policy distills.

    Args:
        model: the float network; untouched.
        policy: bits and distillation lists, or the path of their file; None trains in float.
        data: what to train on: tensors ``(inputs, targets)``, a data set of ``(inputs…, target)``, a data loader, or
            a :class:`hessrank.distill.tasks.Task`, which brings validation data, loss and metrics of its own.
        teacher: float or quantized; None takes ``model`` as it is. It is asked only if layers are to be distilled.
        validation: what to judge with, likewise; None takes ``data``, and says so.
        loss: ``cross-entropy``, ``mse``, ``l1``, ``charbonnier``, ``file.py:fn``, or a function of output and target.
        metrics: torchmetrics by name, with ``update(output, target)``; the loss is there anyway.
        monitor: the metric that decides which epoch is best; the first, or the loss.
        mode: whether it should be large (``max``) or small (``min``).
        arch: what builds ``model``, ``pkg.mod:factory``; the checkpoints note it, so that they can be loaded by
            themselves.
        arch_args: its arguments.
        out: folder to write to; a new one in ``runs`` if not given.
        resume: go on from the last checkpoint in ``out``, to the same result as without a break.
        gpu_ids: numbers of GPUs; any, where there are some.
        say: is told what the run starts from, line by line.
        progress: is told ``(stage, done, total)``.
        settings: as a run file has them, :class:`hessrank.distill.run_file.Settings`: ``epochs``, ``batch_size``,
            ``learning_rate``, ``distill_loss``, ``seed``, …

    Returns:
        the network of the best epoch, and how it went.

    With several ``devices`` Lightning runs the script once more in every further process: put what should run only
    once under ``if __name__ == "__main__"`` and keep the call of ``train`` reachable, as Lightning's pages say.

    Raises:
        HessrankError: something does not fit, cannot be read or written, or the loss is not finite any more.
    """
    chosen = Settings.of(settings)
    model, teacher = unwrap(model), None if teacher is None else unwrap(teacher)
    if isinstance(model, QuantizedModel):
        raise ModelError("the model is quantized already: give the float model that it was made from")
    folder = shared_folder(type(model).__name__) if out is None else Path(out)
    task, notes = _make_task(data, validation, loss, metrics, monitor, mode, chosen.batch_size)
    read = None if policy is None else read_policy(policy)
    network = FloatNetwork(copy_network(model), arch, arch_args or {})
    if teacher is not None and not (read and read.distill_config):
        notes = (*notes, "the teacher does nothing: the policy distills no layer")
    if is_main_process():
        say("reads the data" + ("" if read is None else ", takes ranges from training samples"))
    with writing_folder(folder), seeded(chosen.seed), cpu_threads(chosen.threads):
        task_data = read_task_data(task, network.model, chosen)
        student = make_student(network.model, read, task_data, chosen)
        loss_name = loss if isinstance(loss, str) else getattr(loss, "__qualname__", type(loss).__qualname__)
        plan = plan_training(
            StartingNetworks(network, student, read, teacher),
            task_data,
            hints_of(read or Policy(), chosen),
            chosen,
            folder,
            identity=identity_in_memory(network.model, teacher, first_samples(task_data, chosen), loss_name),
            notes=(*notes, *describe_student(student)),
        )
        return run_training(plan, choose_devices(gpu_ids, chosen.devices), resume=resume, say=say, report=progress)


def _make_task(
    data: Any,
    validation: Any,
    loss: str | Callable[[Any, Any], Tensor],
    metrics: Mapping[str, Metric] | None,
    monitor: str | None,
    mode: Literal["max", "min"] | None,
    batch_size: int,
) -> tuple[Task, tuple[str, ...]]:
    if isinstance(data, Task):
        return data, data.notes
    columns = isinstance(data if validation is None else validation, Tensor | np.ndarray | tuple | Mapping)
    size = batch_size if columns else 1  # the samples of a data set may differ in size
    task = GivenTask(
        data, validation, loss=loss, metrics=metrics, monitor=monitor, mode=mode, validation_batch_size=size
    )
    return task, () if validation is not None else ("no validation data: the training data judge, too",)
