"""What a training leaves to read."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from helpers.training_networks import HINTED, network, points, trained
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torchmetrics.classification import MulticlassAccuracy

from hessrank.distill.run_file import Settings
from hessrank.distill.training.callbacks.checkpoints import Checkpoints
from hessrank.distill.training.callbacks.metrics_files import MetricsFiles

TERMS = ["loss", "task", "relu", "inner.relu_dup1"]


def test_a_row_an_epoch_and_a_row_a_step(tmp_path: Path) -> None:
    result = trained(tmp_path, HINTED, epochs=3, detailed_epochs=1, log_every=4)
    metrics, steps = pd.read_csv(tmp_path / "metrics.csv"), pd.read_csv(tmp_path / "steps.csv")
    assert list(metrics) == ["epoch", "step", "learning_rate", *(f"train/{term}" for term in TERMS), "val/loss"]
    pd.testing.assert_frame_equal(metrics, result.metrics)
    assert metrics["epoch"].tolist() == [1, 2, 3]
    assert metrics["step"].tolist() == [6, 12, 18]
    assert list(steps) == ["epoch", "step", *TERMS]
    assert steps["step"].tolist() == [1, 2, 3, 4, 5, 6, 8, 12, 16]  # the first epoch in detail, then every fourth


def test_terms_add_up_and_means_are_means(tmp_path: Path) -> None:
    trained(tmp_path, HINTED, epochs=2, detailed_epochs=2)
    metrics, steps = pd.read_csv(tmp_path / "metrics.csv"), pd.read_csv(tmp_path / "steps.csv")
    for loss, total in zip(steps["loss"], steps[TERMS[1:]].sum(axis=1), strict=True):
        assert loss == pytest.approx(total, rel=1e-5)
    means = steps.groupby("epoch")[TERMS].mean()
    for term in TERMS:
        assert metrics[f"train/{term}"].tolist() == pytest.approx(means[term].tolist(), rel=1e-5)


def test_before_the_first_step(tmp_path: Path) -> None:
    said: list[str] = []
    accuracy = {"accuracy": MulticlassAccuracy(num_classes=3, average="micro")}
    result = trained(tmp_path, HINTED, metrics=accuracy, epochs=1, say=said.append)
    x, y = points(20, seed=1)
    with torch.no_grad():
        logits = network().eval()(x)
    right = float((logits.argmax(1) == y).double().mean())
    assert set(result.before) == {"float", "quantized", "teacher"}
    assert result.before["float"]["accuracy"] == result.before["teacher"]["accuracy"] == pytest.approx(right)
    assert result.before["float"]["loss"] == pytest.approx(float(nn.functional.cross_entropy(logits, y)), rel=1e-6)
    assert result.before["quantized"] != result.before["float"]
    text = "\n".join(said)
    for wanted in ("float      accuracy", "quantized  accuracy", "teacher    accuracy", "distill relu: 0.7 × mse"):
        assert wanted in text
    assert f"1 epochs of 6 steps of 8 samples; writes to {tmp_path}" in text
    record = json.loads((tmp_path / "start.json").read_text())
    assert record["before"] == result.before
    assert record["settings"]["epochs"] == 1
    assert record["bits"]["weight of first"] == 4


def test_no_validation_data_is_said(tmp_path: Path) -> None:
    said: list[str] = []
    trained(tmp_path, validation=None, epochs=1, say=said.append)
    assert "note: no validation data: the training data judge, too" in said


def test_the_result(tmp_path: Path) -> None:
    result = trained(tmp_path, HINTED, epochs=2)
    record = json.loads((tmp_path / "result.json").read_text())
    assert record["best_epoch"] == result.best_epoch
    assert record["best"] == result.best
    assert record["last"] == result.last == {"loss": result.metrics["val/loss"].iloc[-1]}
    assert f"quantized, epoch {result.best_epoch}" in str(result)
    assert "float, before" in str(result)
    assert (tmp_path / "curves.png").stat().st_size > 1000


def test_nothing_trained_is_a_judgment(tmp_path: Path) -> None:
    result = trained(tmp_path, HINTED, epochs=0)
    assert result.best_epoch == 0
    assert result.best == dict(result.before["quantized"])
    assert result.metrics.empty
    assert not list(tmp_path.glob("*.ckpt"))


def test_a_page_an_epoch(tmp_path: Path) -> None:
    trained(tmp_path, HINTED, epochs=2)
    pages = sorted((tmp_path / "results").iterdir())
    assert [page.name for page in pages] == ["epoch0001.txt", "epoch0002.txt"]
    text = pages[1].read_text()
    assert text.startswith("epoch 2 of 2, step 12\n")
    for name in (*(f"train/{term}" for term in TERMS), "val/loss", "learning_rate"):
        assert f"\n{name} " in text


def test_tensorboard_holds_the_same(tmp_path: Path) -> None:
    result = trained(tmp_path, HINTED, epochs=2)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    scalars = events.Tags()["scalars"]
    assert {f"train/{term}" for term in TERMS} | {"val/loss"} | {f"step/{term}" for term in TERMS} <= set(scalars)
    assert [event.value for event in events.Scalars("val/loss")][-2:] == pytest.approx(
        result.metrics["val/loss"].tolist(), rel=1e-6
    )


def test_the_best_epoch_by_another_metric(tmp_path: Path) -> None:
    accuracy = {"accuracy": MulticlassAccuracy(num_classes=3, average="micro")}
    result = trained(tmp_path, metrics=accuracy, epochs=5, learning_rate=0.05)
    assert result.metrics["val/accuracy"].idxmax() + 1 == result.best_epoch
    by_loss = trained(tmp_path / "loss", metrics=accuracy, monitor="loss", mode="min", epochs=5, learning_rate=0.05)
    assert by_loss.metrics["val/loss"].idxmin() + 1 == by_loss.best_epoch


def test_a_training_that_made_things_worse_says_so(tmp_path: Path) -> None:
    said: list[str] = []
    trained(tmp_path / "worse", None, epochs=1, learning_rate=3.0, say=said.append)
    assert "note: no epoch was better than before the first step, by loss" in said
    said.clear()
    trained(tmp_path / "better", None, epochs=12, learning_rate=3e-2, say=said.append)
    assert not any("no epoch was better" in line for line in said)


def test_the_keys_in_a_checkpoint_are_those_of_earlier_releases(tmp_path: Path) -> None:
    kept = MetricsFiles(tmp_path, Settings()), Checkpoints(tmp_path, "loss", "min", {}, {})
    assert [callback.state_key for callback in kept] == ["Records", "Checkpoints"]
