"""What a training gives back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from torch import nn

from hessrank.distill.training.outputs.file_names import RESULT
from hessrank.files.atomic_write import written_whole


@dataclass(frozen=True)
class TrainResult:
    """A trained network and its metrics, which ``print(result)`` shows.

    Attributes:
        model: the network with its best weights, in evaluation mode on the CPU: a :class:`hessrank.QuantizedModel`,
            or a float network.
        metrics: one row an epoch, as ``metrics.csv``: ``epoch``, ``step``, ``learning_rate``, ``train/…``, ``val/…``.
        before: the metrics before the first step by network (``float``, ``quantized``, ``teacher``) and name.
        best_epoch: the best epoch, counted from 1; 0 if none was trained, or none was better than the state before.
        folder: where everything was written.
        student: what the trained network is called in ``before``.
        notes: what a user should know, a sentence each.
    """

    model: nn.Module
    metrics: pd.DataFrame
    before: Mapping[str, Mapping[str, float]]
    best_epoch: int
    folder: Path
    student: str = "quantized"
    notes: tuple[str, ...] = field(default=())

    @property
    def best(self) -> dict[str, float]:
        """The metrics of the best weights, by name: after the best epoch, or before the first step."""
        if self.best_epoch == 0:
            return dict(self.before[self.student])
        return _validation(self.metrics.loc[self.metrics["epoch"] == self.best_epoch].iloc[0])

    @property
    def last(self) -> dict[str, float]:
        """The metrics of the last epoch, likewise."""
        if self.metrics.empty:
            return self.best
        return _validation(self.metrics.iloc[-1])

    def table(self) -> pd.DataFrame:
        """Return one row a network, one column a metric: before, and the student after its best (or last) epoch."""
        rows = {f"{name}, before": dict(found) for name, found in self.before.items()}
        if self.best_epoch:
            rows[f"{self.student}, epoch {self.best_epoch}"] = self.best
        elif not self.metrics.empty:
            rows[f"{self.student}, epoch 0, the best"] = self.best
            rows[f"{self.student}, epoch {self.metrics['epoch'].iloc[-1]}, the last"] = self.last
        return pd.DataFrame(rows).T

    def __str__(self) -> str:
        return self.table().to_string(float_format="{:.4g}".format)

    def write(self) -> None:
        """Write ``result.json``, which says that the training is over.

        Raises:
            OutputError: it cannot be written.
        """
        record = {
            "best_epoch": self.best_epoch,
            "best": self.best,
            "last": self.last,
            "before": {name: dict(found) for name, found in self.before.items()},
            "notes": list(self.notes),
        }
        with written_whole(self.folder / RESULT) as beside:
            beside.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _validation(row: pd.Series) -> dict[str, float]:
    """Return the validation metrics of an epoch's row, by name."""
    return {name.removeprefix("val/"): float(row[name]) for name in row.index if name.startswith("val/")}
