"""What is measured and written down before the first step: a training that begins wrong should not begin."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch

from hessrank.distill.training.evaluate import Network, judge
from hessrank.distill.training.inputs.loaders import training_loader, validation_loader
from hessrank.distill.training.inputs.timeout import within
from hessrank.distill.training.networks import Networks
from hessrank.distill.training.outputs.file_names import START, TEST
from hessrank.distill.training.plan import TrainingPlan
from hessrank.errors import DataError
from hessrank.files.atomic_write import written_whole

Say = Callable[[str], None]


@dataclass(frozen=True)
class Baseline:
    """The metrics before the first step.

    Attributes:
        metrics: by network (``float``, ``quantized``, ``teacher``) and metric; empty in processes that only help.
        steps: training steps an epoch; None where the data do not say.
    """

    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    steps: int | None = None


def measure_baseline(plan: TrainingPlan, device: torch.device, *, judged: bool = True) -> Baseline:
    """Judge every network on the validation data, once data are known to come.

    Args:
        plan: what is to be trained; networks that are judged end up on ``device``, in evaluation mode.
        device: where to compute.
        judged: whether to judge; of several processes that train together, one does.

    Raises:
        DataError: nothing comes in time, or it does not fit the network.
    """
    settings, data = plan.settings, plan.data
    training = training_loader(data.training, settings)
    validation = validation_loader(data.validation, data.task.validation_batch_size, settings)
    _require_batch(training, "the training data", settings.data_timeout)
    _require_batch(validation, "the validation data", settings.data_timeout)
    networks = _networks_to_judge(plan.networks, device) if judged else {}
    signature = plan.networks.signature
    metrics = {name: judge(network, data.task, validation, signature, device) for name, network in networks.items()}
    steps = None
    with suppress(TypeError):  # a data loader that does not know its length
        steps = len(training)
    return Baseline(metrics, steps)


def _require_batch(loader: Any, what: str, seconds: float) -> None:
    if within(seconds, what, lambda: next(iter(loader), None)) is None:
        raise DataError(f"{what} hold no batch")


def _networks_to_judge(networks: Networks, device: torch.device) -> dict[str, Network]:
    """Return what there is to judge, by name, on a device and in evaluation mode."""
    modules = {"float": networks.signature} if networks.judges_float else {}
    modules[networks.student_name] = networks.student  # "float", too, in a float training
    found: dict[str, Network] = {name: module.to(device).eval() for name, module in modules.items()}
    if networks.teacher is not None:
        found["teacher"] = networks.teacher.to(device).answer
    return found


def announce_start(baseline: Baseline, plan: TrainingPlan, say: Say, *, judge_only: bool = False) -> None:
    """Say what will be trained and where it starts, and write it to a file.

    The file is ``start.json``, or ``test.json`` if nothing will be trained.


    Args:
        baseline: the metrics before the first step.
        plan: what will be trained.
        say: is told, line by line.
        judge_only: nothing will be trained.

    Raises:
        OutputError: the file cannot be written.
    """
    for note in plan.notes:
        say(f"note: {note}")
    names = list(next(iter(baseline.metrics.values()), {}))
    width = max((len(name) for name in baseline.metrics), default=0)
    for network, found in baseline.metrics.items():
        say(f"{network:{width}}  " + "  ".join(f"{name} {found[name]:.4g}" for name in names))
    if plan.distillation is not None:
        for hint in plan.distillation.hints:
            say(f"distill {hint.layer}: {hint.coefficient:g} × {hint.loss}")
    settings = plan.settings
    if not judge_only:
        steps = "?" if baseline.steps is None else str(baseline.steps)
        say(f"{settings.epochs} epochs of {steps} steps of {settings.batch_size} samples; writes to {plan.folder}")
    with written_whole(plan.folder / (TEST if judge_only else START)) as beside:
        beside.write_text(json.dumps(_start_record(baseline, plan), indent=1) + "\n", encoding="utf-8")


def _start_record(baseline: Baseline, plan: TrainingPlan) -> dict[str, Any]:
    """Return what ``start.json`` says; of the checkpoints' facts all that JSON can hold."""
    record = {
        "before": {name: dict(found) for name, found in baseline.metrics.items()},
        "notes": list(plan.notes),
        "settings": plan.settings.model_dump(mode="json"),
    }
    for key, value in plan.facts.items():
        with suppress(TypeError):
            json.dumps(value)
            record[key] = value
    return record
