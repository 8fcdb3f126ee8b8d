"""What a training says while it runs: loss, speed and time left; and that it speaks before it loads torch."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from helpers.training_networks import trained

from hessrank.cli.terminal import training_progress
from hessrank.cli.terminal.training_progress import training_reporter
from hessrank.terminal import terminal


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that a test turns on; rich reads it when a bar is made."""
    now = [100.0]
    real = training_progress.Progress
    monkeypatch.setattr(training_progress, "Progress", lambda *a, **k: real(*a, get_time=lambda: now[0], **k))
    monkeypatch.delenv("HESSRANK_PROGRESS_SECONDS", raising=False)
    monkeypatch.setattr(training_progress.time, "monotonic", lambda: now[0])
    return now


def test_lines_tell_loss_speed_and_time_left(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    """Two steps a second, one line in five seconds; a second training starts anew."""
    with training_reporter() as report:
        assert report is not None
        for _ in range(2):
            for step in range(1, 41):
                clock[0] += 0.5
                report.loss(torch.tensor(1.0 / step))
                report("training", step, 100)
    lines = capsys.readouterr().err.splitlines()
    assert lines[:3] == [
        "training 1/100, loss 1",
        "training 11/100, loss 0.09091, 2 steps/s, 0:00:45 left",
        "training 21/100, loss 0.04762, 2 steps/s, 0:00:40 left",
    ]
    assert len(lines) == 8
    assert lines[4] == "training 1/100, loss 1"


def test_a_length_that_nobody_knows(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with training_reporter() as report:
        assert report is not None
        for step in range(1, 21):
            clock[0] += 0.5
            report("training", step, 0)
    assert capsys.readouterr().err.splitlines() == ["training 1/?", "training 11/?, 2 steps/s"]


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(training_progress, "terminal", partial(terminal, force_terminal=True, width=100))
    with training_reporter() as report:
        assert report is not None
        report.loss(torch.tensor(0.125))
        report("training", 3, 8)
    told = capsys.readouterr().err
    assert "3/8" in told
    assert "loss 0.125" in told


def test_processes_that_help_are_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    with training_reporter() as report:
        assert report is None


def test_a_training_tells_its_loss(tmp_path: Path) -> None:
    class Report:
        def __init__(self) -> None:
            self.losses: list[float] = []
            self.steps: list[tuple[str, int, int]] = []

        def loss(self, value: torch.Tensor) -> None:
            self.losses.append(float(value))

        def __call__(self, *told: object) -> None:
            self.steps.append(told)  # type: ignore[arg-type]

    report, said = Report(), []
    result = trained(tmp_path, epochs=2, progress=report, say=said.append)
    assert report.steps == [("training", step, 12) for step in range(1, 13)]
    assert sum(report.losses[6:]) / 6 == pytest.approx(result.metrics["train/loss"].iloc[1], rel=1e-5)
    assert said[:2] == [
        "reads the data, takes ranges from training samples",
        "judges the networks on the validation data, before the first step",
    ]


@pytest.mark.parametrize("command", ["train", "study"])
def test_it_speaks_before_it_loads_torch(command: str, tmp_path: Path) -> None:
    """Where torch cannot be loaded at all, the first line is there."""
    code = f"import sys; sys.modules['torch'] = None; from hessrank.cli import main; main(['{command}', 'run.yaml'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[0] == "reads run.yaml, loads torch and Lightning (some seconds)"
    assert "torch" in done.stderr.splitlines()[-1]
