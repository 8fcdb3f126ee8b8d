"""What a training of a study has left in its folder, read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, model_validator
from pydantic_core import from_json

from hessrank.distill.training.outputs.file_names import RESULT, START
from hessrank.errors import OutputError
from hessrank.files.paths import bounded_bytes
from hessrank.text import one_line
from hessrank.validation import M, RecordPart, Whole, validate

_MOST_BYTES = 2**26
_REMEDY = "remove the folder of this training, and it is run again"

Metrics = dict[str, float]


class BegunTraining(RecordPart):
    """What was to be trained."""

    policy: str | None
    settings: dict[str, Any]
    identity: dict[str, Any]


class MetricsBefore(RecordPart):
    """The metrics before the first step, by network."""

    float_: Metrics = Field(alias="float")
    quantized: Metrics | None = None


class FinishedTraining(RecordPart):
    """What came of it."""

    best_epoch: Whole
    before: MetricsBefore
    last: Metrics
    best: Metrics

    @model_validator(mode="after")
    def _of_the_same_metrics(self) -> FinishedTraining:
        if not self.student.keys() == self.last.keys() == self.best.keys():
            raise ValueError("before, last and best do not hold the same metrics")
        return self

    @property
    def student(self) -> Metrics:
        """The metrics of the network that was trained, before the first step."""
        return self.before.float_ if self.before.quantized is None else self.before.quantized


def read_start(folder: Path) -> BegunTraining:
    """Read what a training wrote before its first step.

    Raises:
        OutputError: the file is missing or damaged; the path of keys is named.
    """
    return _read(folder / START, BegunTraining)


def read_result(folder: Path) -> FinishedTraining:
    """Read what a training wrote at its end; otherwise as :func:`read_start`."""
    return _read(folder / RESULT, FinishedTraining)


def _read(path: Path, cls: type[M]) -> M:
    text = bounded_bytes(path, _MOST_BYTES, f"a training's; {_REMEDY}", error=OutputError)
    try:
        held = from_json(text)
    except ValueError as error:
        raise OutputError(f"{path}: cannot be read as JSON ({one_line(error)}); {_REMEDY}") from error
    return validate(cls, held, source=str(path), error=OutputError, remedy=_REMEDY)
