"""What a training gives back."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
from torch import nn

from hessrank.distill.training.outputs.result import TrainResult

METRICS = pd.DataFrame({"epoch": [1, 2], "train/loss": [4.0, 3.0], "val/loss": [2.0, 2.5]})


def result(best: int, folder: Path, metrics: pd.DataFrame = METRICS) -> TrainResult:
    return TrainResult(nn.Identity(), metrics, {"float": {"loss": 1.0}, "quantized": {"loss": 3.0}}, best, folder)


def test_best_and_last_are_validation_metrics(tmp_path: Path) -> None:
    found = result(1, tmp_path)
    assert (found.best, found.last) == ({"loss": 2.0}, {"loss": 2.5})
    assert found.table()["loss"].to_dict() == {"float, before": 1, "quantized, before": 3, "quantized, epoch 1": 2}
    assert "quantized, epoch 1" in str(found)


def test_no_better_epoch_is_the_state_before(tmp_path: Path) -> None:
    found = result(0, tmp_path)
    assert found.best == {"loss": 3.0}
    assert found.table()["loss"].to_list() == [1, 3, 3, 2.5]
    assert result(0, tmp_path, METRICS[:0]).last == {"loss": 3.0}


def test_it_is_written_as_json(tmp_path: Path) -> None:
    result(1, tmp_path).write()
    record = json.loads((tmp_path / "result.json").read_text())
    assert (record["best_epoch"], record["best"], record["last"]) == (1, {"loss": 2.0}, {"loss": 2.5})
