"""`--resume` after Ctrl-C and after a kill, and torchrun, as a user meets them."""

import re
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.processes import in_two_processes, interrupted
from torch import nn

from hessrank.cli import main

ARCH = """
import time
import torch
from torch import nn

def net():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3))

class Slow(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = net()
    def forward(self, x):
        time.sleep(0.02)
        return self.body(x)

class Picky(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = net()
    def forward(self, x):
        return self.body(torch.where(x.amax() > 90, torch.nan, 1.0) * x)
"""

COMMAND = ["model.pth", "--arch", "nets.py:Slow", "--data", "x.npy", "--tolerance", "1e-9", "--out", "r.csv"]

LONG = ["--increase-probes", "2000"]  # so that the increases take seconds


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with architectures, weights that fit them and data, as the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HESSRANK_SAVE_SECONDS", "0")
    (tmp_path / "nets.py").write_text(ARCH)
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3)).state_dict()
    torch.save({f"body.{key}": value for key, value in body.items()}, tmp_path / "model.pth")
    np.save(tmp_path / "x.npy", torch.randn(6, 3, 32, 32).numpy())
    return tmp_path


def _whole(folder: Path, *options: str) -> dict[str, bytes]:
    """Rank without a break; return the files, which are then removed."""
    assert main([*COMMAND, *options]) == 0
    files = [folder / "r.csv", folder / "r.json"]
    content = {path.name: path.read_bytes() for path in files}
    for path in files:
        path.unlink()
    return content


def test_killed_again_and_again_it_ends_with_the_same_bytes(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["hessrank", *COMMAND, *LONG])
    whole = _whole(folder, *LONG)
    for sign, after in (("probes", 0.0), ("increases", 0.0), ("increases", 0.3)):
        code, err = interrupted([*COMMAND, *LONG, "--resume"], folder, sign=sign, by=signal.SIGKILL, after=after)
        assert code == -signal.SIGKILL, err
        assert (folder / "r.csv.partial").exists()
        assert not (folder / "r.csv").exists()
    monkeypatch.setattr("sys.argv", ["hessrank", *COMMAND, *LONG, "--resume"])
    capsys.readouterr()
    assert main([*COMMAND, *LONG, "--resume"]) == 0
    assert "wrote r.csv, r.json" in capsys.readouterr().err
    assert {name: (folder / name).read_bytes() for name in whole} == whole
    assert not list(folder.glob("*partial*"))
    assert not list(folder.glob(".*"))


def test_ctrl_c_says_how_to_go_on(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long = [*COMMAND, *LONG]
    whole = _whole(folder, *LONG)
    code, err = interrupted(long, folder, sign="increases", after=0.1)
    assert code == 130, err
    assert "interrupted: r.csv.partial holds what was found: go on with --resume" in err
    assert "Traceback" not in err
    capsys.readouterr()
    assert main(long) == 2
    assert re.search(r"r\.csv\.partial: an interrupted ranking is here: go on", capsys.readouterr().err)
    assert main([*long, "--seed", "7", "--resume"]) == 2
    assert re.search(r"is of another ranking \(seed was 0, is 7\)", capsys.readouterr().err)
    assert main([*long, "--resume"]) == 0
    assert (folder / "r.csv").read_bytes() == whole["r.csv"]


def test_resume_needs_a_table_to_go_on_with(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*COMMAND[:-2], "--resume"]) == 2
    assert "--resume goes on with what lies beside a table: give the --out" in capsys.readouterr().err


def test_torchrun_writes_the_same_bytes_and_speaks_once(folder: Path) -> None:
    whole = _whole(folder)
    done = in_two_processes(COMMAND, folder)
    assert done.returncode == 0, done.stderr
    assert (folder / "r.csv").read_bytes() == whole["r.csv"]
    assert done.stdout.count("5 layers by trace") + done.stdout.count("4 layers by trace") == 1
    assert done.stderr.count("wrote r.csv, r.json") == 1
    lines = re.findall(r"^estimating the traces, probes (\d+)/64", done.stderr, re.MULTILINE)
    assert [int(line) for line in lines] == sorted(map(int, lines))  # one progress, not two
    assert not list(folder.glob("*partial*"))


def test_an_error_of_the_second_process_is_told_once_and_ends_both(folder: Path) -> None:
    x = np.load("x.npy")
    x[5, 0, 0, 0] = 99
    np.save("x.npy", x)
    command = [word.replace("Slow", "Picky") for word in COMMAND]
    done = in_two_processes(command, folder)
    assert done.returncode != 0
    assert done.stderr.count("error: layer") == 1
    assert "in samples 5" in done.stderr
    assert not (folder / "r.csv").exists()


def test_a_command_for_one_process_says_so(folder: Path) -> None:
    done = in_two_processes(["show", "r.csv"], folder)
    assert done.returncode != 0
    assert done.stderr.count("error: hessrank show works in one process: start it without torchrun") == 1
