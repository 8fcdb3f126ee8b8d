"""A task's data, read once before a training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from hessrank.data.batch import Batch, make_batch
from hessrank.data.samples import as_samples
from hessrank.distill.run_file import Settings
from hessrank.distill.tasks.base import Task
from hessrank.distill.training.inputs.loaders import is_dataset
from hessrank.distill.training.inputs.timeout import within
from hessrank.errors import DataError


@dataclass(frozen=True)
class TaskData:
    """A task's data, and one sample of them.

    Attributes:
        task: whose data they are.
        training: samples or a data loader.
        validation: likewise.
        example: the first training sample as a batch of one, without its target.
    """

    task: Task
    training: Any
    validation: Any
    example: Batch


def read_task_data(task: Task, model: nn.Module, settings: Settings) -> TaskData:
    """Read a task's data, waiting for them as long as the settings allow.

    Args:
        task: whose data to read.
        model: the network whose ``forward`` binds a sample's fields.
        settings: how long to wait.

    Raises:
        DataError: there are none, they do not fit the network, or nothing comes in time.
    """
    seconds = settings.data_timeout
    training = within(seconds, "the training data", task.training_data)
    validation = within(seconds, "the validation data", task.validation_data)
    for what, data in {"training": training, "validation": validation}.items():
        if is_dataset(data) and len(as_samples(data)) == 0:
            raise DataError(f"there is no {what} data")

    def read_first() -> Batch:
        return make_batch(as_samples(training, 1), [0], model, needs_target=True)

    first = within(seconds, "the training data", read_first)
    return TaskData(task, training, validation, Batch(first.args, first.kwargs))


def first_samples(data: TaskData, settings: Settings) -> dict[str, Any]:
    """Return the first sample of ``data`` (to train on) and of ``validation``.

    Raises:
        DataError: nothing comes in time.
    """
    validation = within(settings.data_timeout, "the validation data", lambda: as_samples(data.validation, 1)[0])
    return {"data": as_samples(data.training, 1)[0], "validation": validation}
