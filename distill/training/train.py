"""Training in Python: a model, a policy, data, and maybe a teacher."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor, nn
from torchmetrics import Metric

from hessrank.distill.run_file import Settings
from hessrank.distill.tasks.base import Task
from hessrank.distill.tasks.given import GivenTask
from hessrank.distill.training.callbacks.progress import Report
from hessrank.distill.training.inputs.devices import choose_devices, cpu_threads
from hessrank.distill.training.inputs.loaders import seeded
from hessrank.distill.training.inputs.timeout import within
from hessrank.distill.training.outputs.checkpoint_facts import facts_of
from hessrank.distill.training.outputs.identity import identity_in_memory
from hessrank.distill.training.outputs.result import TrainResult
from hessrank.distill.training.outputs.run_folder import shared_folder, writing_folder
from hessrank.distill.training.plan import first_sample, make_job, materials_of, notes_of, quantized
from hessrank.distill.training.run import work
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
    task, notes = _task(data, validation, loss, metrics, monitor, mode, chosen.batch_size)
    read = None if policy is None else read_policy(policy)
    reference = copy_network(model)
    if teacher is not None and not (read and read.distill_config):
        notes = (*notes, "the teacher does nothing: the policy distills no layer")
    if is_main_process():
        say("reads the data" + ("" if read is None else ", takes ranges from training samples"))
    with writing_folder(folder), seeded(chosen.seed), cpu_threads(chosen.threads):
        materials = materials_of(task, reference, chosen)
        student = copy.deepcopy(reference) if read is None else quantized(reference, read, materials, chosen)
        read_first = partial(first_sample, materials.validation)
        first = within(chosen.data_timeout, "the validation data", read_first)
        samples = {"data": first_sample(materials.training), "validation": first}
        identity = identity_in_memory(reference, teacher, samples, loss if isinstance(loss, str) else _name_of(loss))
        facts = facts_of(student, read, chosen, materials, arch=arch, arch_args=arch_args or {}, identity=identity)
        notes = (*notes, *notes_of(student))
        job = make_job(reference, student, teacher, read or Policy(), materials, chosen, folder, facts, notes)
        return work(job, choose_devices(gpu_ids, chosen.devices), resume=resume, say=say, report=progress)


def _name_of(function: Any) -> str:
    return getattr(function, "__qualname__", type(function).__qualname__)


def _task(
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
