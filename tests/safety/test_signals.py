"""SIGTERM and SIGHUP are Ctrl-C: what was found is saved, the last line says how to go on, and it goes on."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.processes import interrupted
from helpers.training_networks import trained
from torch import nn

from hessrank.cli import main
from hessrank.signals import STOPPING, stopping_signals

ARCH = """
import time
from torch import nn

class Slow(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    def forward(self, x):
        time.sleep(0.01)
        return self.body(x)
"""
RANK = ["model.pth", "--arch", "nets.py:Slow", "--data", "x.npy", "--tolerance", "1e-9", "--out", "r.csv"]
RUN = """
task: classification
quant: false
epochs: 3
batch_size: 16
pictures: 0
threads: 1
task_args: {samples: 256}
"""
TERMINATIONS = [signal.SIGTERM, signal.SIGHUP]


@pytest.fixture(autouse=True)
def _heard() -> Iterator[None]:
    """Let no signal be ignored, as a job in the background or under nohup ignores some."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in TERMINATIONS}
    before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A slow network, data and a run file, in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HESSRANK_SAVE_SECONDS", "0")
    (tmp_path / "nets.py").write_text(ARCH)
    (tmp_path / "run.yaml").write_text(RUN)
    torch.manual_seed(0)
    body = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).state_dict()
    torch.save({f"body.{key}": value for key, value in body.items()}, tmp_path / "model.pth")
    np.save(tmp_path / "x.npy", torch.randn(4, 3).numpy())
    return tmp_path


def test_a_ranking_stops_and_goes_on_to_the_same_bytes(folder: Path) -> None:
    command = [*RANK, "--increase-probes", "400"]
    assert main(command) == 0
    whole = (folder / "r.csv").read_bytes()
    for path in (folder / "r.csv", folder / "r.json"):
        path.unlink()
    for options, by in (([], signal.SIGTERM), (["--resume"], signal.SIGHUP)):
        code, err = interrupted([*command, *options], folder, sign="increases", by=by, after=0.0)
        assert code == 130, err
        assert err.splitlines()[-1] == "interrupted: r.csv.partial holds what was found: go on with --resume"
        assert not (folder / "r.csv").exists()
    assert main([*command, "--resume"]) == 0
    assert (folder / "r.csv").read_bytes() == whole
    assert not list(folder.glob("*partial*"))


def test_a_training_stops_and_goes_on_to_the_same_bytes(folder: Path) -> None:
    assert main(["train", "run.yaml", "--out", "whole"]) == 0
    command = ["train", "run.yaml", "--out", "cut"]
    code, err = interrupted(command, folder, sign="training 17/", by=signal.SIGTERM, after=0.0)
    assert code == 130, err
    assert err.splitlines()[-1] == "interrupted: cut holds the epochs that were finished: go on with --resume"
    assert not (folder / "cut" / "result.json").exists()
    assert main([*command, "--resume"]) == 0
    for name in ("metrics.csv", "result.json"):
        assert (folder / "cut" / name).read_bytes() == (folder / "whole" / name).read_bytes()


@pytest.mark.parametrize("by", STOPPING)
def test_a_training_hears_it_at_the_end_of_a_step(tmp_path: Path, by: signal.Signals) -> None:
    heard = []

    def send(stage: str, done: int, total: int) -> None:
        heard.append(done)
        if done == 9:
            os.kill(os.getpid(), by)
            sum(range(1000))  # where Python's own handler would raise

    with stopping_signals():
        before = [signal.getsignal(number) for number in STOPPING]
        with pytest.raises(KeyboardInterrupt):
            trained(tmp_path, epochs=3, progress=send)
        assert [signal.getsignal(number) for number in STOPPING] == before
    assert heard[-1] == 9
    assert [path.name for path in tmp_path.glob("last*.ckpt")] == ["last-epoch0001.ckpt"]


@pytest.mark.parametrize("by", TERMINATIONS)
class TestStoppingSignals:
    def test_it_interrupts_once_for_those_that_come_together(self, by: signal.Signals) -> None:
        with stopping_signals():
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(by)
            signal.raise_signal(by)
            time.sleep(0.25)
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(by)

    def test_handlers_are_what_they_were(self, by: signal.Signals) -> None:
        before = signal.getsignal(by)
        with stopping_signals():
            assert signal.getsignal(by) is not before
        assert signal.getsignal(by) is before

    def test_who_ignores_it_goes_on_to(self, by: signal.Signals) -> None:
        before = signal.signal(by, signal.SIG_IGN)
        try:
            with stopping_signals():
                signal.raise_signal(by)
                assert signal.getsignal(by) is signal.SIG_IGN
        finally:
            signal.signal(by, before)
