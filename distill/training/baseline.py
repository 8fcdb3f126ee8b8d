"""What is measured and written down before the first step: a training that begins wrong should not begin."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

from hessrank.distill.training.evaluate import Network, judge
from hessrank.distill.training.inputs.loaders import training_loader, validation_loader
from hessrank.distill.training.inputs.timeout import within
from hessrank.distill.training.plan import Job
from hessrank.errors import DataError
from hessrank.files.atomic_write import written_whole

START, TEST = "start.json", "test.json"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Before:
    """The metrics before the first step.

    Attributes:
        metrics: by network (``float``, ``quantized``, ``teacher``) and metric; empty in processes that only help.
        steps: training steps an epoch; None where the data do not say.
    """

    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    steps: int | None = None


def measure(job: Job, device: torch.device, *, judged: bool = True) -> Before:
    """Judge every network on the validation data, after data have shown that they come at all.

    Args:
        job: what is to be trained; networks that are judged end up on ``device``, in evaluation mode.
        device: where to compute.
        judged: whether to judge; of several processes that train together, one does.

    Raises:
        DataError: nothing comes in time, or it does not fit the network.
    """
    settings, task = job.settings, job.materials.task
    training = training_loader(job.materials.training, settings)
    validation = validation_loader(job.materials.validation, task.validation_batch_size, settings)
    for what, loader in {"training": training, "validation": validation}.items():
        if within(settings.data_timeout, f"the {what} data", partial(_first, loader)) is None:
            raise DataError(f"the {what} data hold no batch")
    signature = job.networks.signature
    networks = networks_of(job, device) if judged else {}
    found = {name: judge(network, task, validation, signature, device) for name, network in networks.items()}
    return Before(found, _length(training))


def _first(loader: Any) -> Any:
    return next(iter(loader), None)


def networks_of(job: Job, device: torch.device) -> dict[str, Network]:
    """Return what there is to judge, by name, on a device and in evaluation mode."""
    networks: dict[str, Network] = {}
    if job.has_float:
        networks["float"] = _evaluating(job.networks.signature, device)
    networks[job.student_name] = _evaluating(job.networks.student, device)  # "float", too, in a float training
    teacher = job.networks.teacher
    if teacher is not None:
        teacher.to(device)
        networks["teacher"] = teacher.answer
    return networks


def _evaluating(module: nn.Module, device: torch.device) -> Network:
    module.to(device).eval()
    return module


def tell(before: Before, job: Job, say: Say, *, judge_only: bool = False) -> None:
    """Say what will be trained and where it starts, and write it to ``start.json`` (``test.json`` if only judged)."""
    for note in job.notes:
        say(f"note: {note}")
    names = list(next(iter(before.metrics.values()), {}))
    width = max((len(name) for name in before.metrics), default=0)
    for network, found in before.metrics.items():
        say(f"{network:{width}}  " + "  ".join(f"{name} {found[name]:.4g}" for name in names))
    if job.distillation is not None:
        for hint in job.distillation.hints:
            say(f"distill {hint.layer}: {hint.coefficient:g} × {hint.loss}")
    settings = job.settings
    if not judge_only:
        steps = "?" if before.steps is None else str(before.steps)
        say(f"{settings.epochs} epochs of {steps} steps of {settings.batch_size} samples; writes to {job.folder}")
    record = {
        "before": {name: dict(found) for name, found in before.metrics.items()},
        "notes": list(job.notes),
        "settings": settings.model_dump(mode="json"),
        **{key: value for key, value in job.facts.items() if _is_plain(value)},
    }
    with written_whole(job.folder / (TEST if judge_only else START)) as beside:
        beside.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _is_plain(value: Any) -> bool:
    try:
        json.dumps(value)
    except TypeError:
        return False
    return True


def _length(loader: Any) -> int | None:
    try:
        return len(loader)
    except TypeError:
        return None
