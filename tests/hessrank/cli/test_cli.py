"""The command line as a user meets it: what it writes, what it says, how it exits."""

import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.processes import interrupted
from torch import nn

from hessrank.analysis.result.ranking_table import COLUMNS
from hessrank.cli import main

ARCH = """
import torch
from torch import nn

def net(width=4):
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(width * 36, 5))

def idle():
    model = net()
    model.add_module("spare", nn.Linear(2, 2))
    model.forward = lambda x: nn.Sequential(*list(model)[:4])(x)
    return model

class Slow(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = net()
    def forward(self, x):
        import time
        time.sleep(0.05)
        return self.body(x)

class Log(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = net()
    def forward(self, x):
        return torch.log(self.body(x) * 0 - 1)

def loss(output, target):
    return (output - 1).abs().mean()

def boom(output, target):
    raise ValueError("broken")
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an architecture, its weights and data, as the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets.py").write_text(ARCH)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
    torch.save(model.state_dict(), tmp_path / "model.pth")
    np.save(tmp_path / "x.npy", torch.randn(6, 3, 8, 8).numpy())
    np.savez(tmp_path / "xy.npz", input=torch.randn(6, 3, 8, 8).numpy(), target=np.arange(6) % 5)
    return tmp_path


MODEL = ["model.pth", "--arch", "nets.py:net"]
GOOD = [*MODEL, "--data", "x.npy"]


def test_the_main_job(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*GOOD, "--out", "ranking.csv", "--plot", "ranking.png"]) == 0
    out, err = capsys.readouterr()
    frame = pd.read_csv("ranking.csv")
    assert frame["layer"].tolist()[:1] == ["3"]
    assert "5 layers by trace" in out
    assert "wrote ranking.csv, ranking.json, ranking.png" in err
    record = json.loads(Path("ranking.json").read_text())
    assert record["model"]["path"] == "model.pth"
    assert len(record["model"]["sha256"]) == 64
    assert record["model"]["arch"] == "nets.py:net"
    assert record["data"]["samples_used"] == 6
    assert record["command"].startswith("hessrank")
    assert (folder / "ranking.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    "options",
    [
        ["--loss", "cross-entropy", "--data", "xy.npz"],
        ["--loss", "mse", "--data", "loaders.py:pairs"],
        ["--estimator", "hutchinson", "--max-probes", "2"],
        ["--estimator", "pyhessian", "--max-probes", "2"],
        ["--estimator", "gauss-newton", "--max-probes", "2", "--no-weights"],
        ["--data", "random", "--input-shape", "3,8,8"],
        ["--num-samples", "2", "--batch-size", "2"],
        ["--by", "act_increase_b4", "--bits", "4,8"],
        ["--increase-probes", "0", "--bits", "4,8"],
        ["--arch-args", '{"width": 4}', "--threads", "1"],
    ],
    ids=lambda options: " ".join(options[:2]),
)
def test_options(folder: Path, options: list[str]) -> None:
    (folder / "loaders.py").write_text("import torch\npairs = [(torch.ones(3, 8, 8), torch.ones(5))] * 3\n")
    data = [] if "--data" in options else ["--data", "x.npy"]
    assert main([*MODEL, *data, *options, "--out", "r.csv"]) == 0
    assert len(pd.read_csv("r.csv")) == 5


def test_show_prints_and_draws_a_saved_ranking(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([*GOOD, "--out", "r.csv"])
    capsys.readouterr()
    assert main(["show", "r.csv", "--by", "act_increase_b4", "--plot", "r.svg", "--top", "2"]) == 0
    out = capsys.readouterr().out
    assert "5 layers by act_increase_b4" in out
    assert "3 more" in out
    assert Path("r.svg").read_text().startswith("<?xml")


class Hostile:
    """A pickle that would create a file when loaded."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch harmed",)


def _spoiled(folder: Path) -> None:
    good = torch.load("model.pth")
    torch.save({k: v for k, v in good.items() if k != "3.bias"} | {"3.bais": good["3.bias"]}, "typo.pth")
    torch.save(good | {"0.weight": good["0.weight"] * float("nan")}, "nan.pth")
    torch.save({f"body.{k}": v for k, v in good.items()}, "body.pth")
    torch.save(good | {"spare.weight": torch.ones(2, 2), "spare.bias": torch.ones(2)}, "idle.pth")
    Path("truncated.pth").write_bytes(Path("model.pth").read_bytes()[:900])
    Path("text.pth").write_text("no model at all\n")
    Path("plain.pth").write_bytes(pickle.dumps(Hostile()))
    torch.save(Hostile(), "hostile.pth")
    np.save("nan.npy", np.full((2, 3, 8, 8), np.nan, dtype=np.float32))
    np.save("wide.npy", np.zeros((2, 5, 8, 8), dtype=np.float32))
    np.savez("labels.npz", input=np.zeros((2, 3, 8, 8), dtype=np.float32), target=np.array([0, 7]))
    np.savez("floats.npz", input=np.zeros((2, 3, 8, 8), dtype=np.float32), target=np.zeros(2, dtype=np.float32))
    Path("model.csv").write_bytes(Path("model.pth").read_bytes())
    Path("x.png").write_bytes(b"")
    Path("half.csv").write_text(",".join(COLUMNS) + "\n")
    row = {**dict.fromkeys(COLUMNS, "1"), "converged": "True", "act_measured": "", "weight_measured": ""}
    Path("whole.csv").write_text(f"{','.join(row)}\n{','.join(row.values())}\n")
    Path("whole.json").write_text("{")
    (folder / "empty").mkdir()


BAD = {
    "missing file": (["modle.pth", "--arch", "nets.py:net", "--data", "x.npy"], "modle.pth.*model.pth"),
    "truncated file": (["truncated.pth", "--arch", "nets.py:net", "--data", "x.npy"], "truncated.pth"),
    "not a model": (["text.pth", "--arch", "nets.py:net", "--data", "x.npy"], "text.pth"),
    "hostile pickle": (["hostile.pth", "--data", "x.npy"], "hostile.pth.*--trust-pickle"),
    "hostile plain pickle": (["plain.pth", "--data", "x.npy"], "plain.pth.*pickle"),
    "state dict without arch": (["model.pth", "--data", "x.npy"], "model.pth.*--arch"),
    "mismatched keys": (["typo.pth", "--arch", "nets.py:net", "--data", "x.npy"], "3.bais.*3.bias|3.bias.*3.bais"),
    "unknown factory": (["model.pth", "--arch", "nets.py:nte", "--data", "x.npy"], "nearest is 'net'"),
    "unknown arch file": (["model.pth", "--arch", "nots.py:net", "--data", "x.npy"], "nots.py.*no such file"),
    "arch args not JSON": ([*GOOD, "--arch-args", "width=4"], "--arch-args 'width=4'.*JSON"),
    "wrong shape": ([*MODEL, "--data", "wide.npy"], r"does not take this input \(float32 1×5×8×8\)"),
    "no data": (MODEL, "no data.*--data random --input-shape"),
    "random data without shape": ([*MODEL, "--data", "random"], "input.shape"),
    "empty folder": ([*MODEL, "--data", "empty"], "empty"),
    "NaN in the data": ([*MODEL, "--data", "nan.npy"], "NaN"),
    "NaN weights": (["nan.pth", "--arch", "nets.py:net", "--data", "x.npy"], "weight '0.weight' holds 108 NaN"),
    "NaN activations": (
        ["body.pth", "--arch", "nets.py:Log", "--data", "x.npy"],
        r"layer 'log' \(log\) is the first that is NaN",
    ),
    "L1": ([*GOOD, "--loss", "l1"], "zero second derivative.*self.*mse.*charbonnier"),
    "L1 of one's own": ([*MODEL, "--data", "xy.npz", "--loss", "nets.py:loss"], "zero second derivative"),
    "no target": ([*GOOD, "--loss", "mse"], "needs a target"),
    "labels out of range": ([*MODEL, "--data", "labels.npz", "--loss", "cross-entropy"], "label 7 is out of range"),
    "unknown loss": ([*GOOD, "--loss", "slef"], "no loss named 'slef'; nearest is 'self'"),
    "unknown estimator": ([*GOOD, "--estimator", "hutchison"], "nearest is 'hutchinson'"),
    "unknown column": ([*GOOD, "--by", "act_increase_b3"], "nearest is 'act_increase_b"),
    "unknown option": ([*GOOD, "--estimater", "auto"], "--estimater.*--estimator"),
    "unknown command": (["shwo", "r.csv"], "did you mean the command 'show'"),
    "bits out of range": ([*GOOD, "--bits", "4,32"], r"\[32\].*2 to 16"),
    "bits not numbers": ([*GOOD, "--bits", "few"], "--bits 'few'"),
    "bad shape": ([*GOOD, "--input-shape", "3,a"], "--input-shape '3,a'"),
    "bad tolerance": ([*GOOD, "--tolerance", "2"], "tolerance is 2"),
    "no probes": ([*GOOD, "--max-probes", "0"], "max_probes is 0"),
    "probes below none": ([*GOOD, "--increase-probes", "-1"], "increase_probes is -1"),
    "no samples": ([*GOOD, "--num-samples", "0"], "num_samples is 0|num-samples"),
    "unknown device": ([*GOOD, "--device", "cudo"], "--device cudo"),
    "out in no folder": ([*GOOD, "--out", "nowhere/r.csv"], "no folder 'nowhere'"),
    "out is a folder": ([*GOOD, "--out", "empty"], "empty: is a folder"),
    "out is a device": ([*GOOD, "--out", "/dev/full"], "/dev/full: is a device"),
    "out over the model": (
        ["model.csv", "--arch", "nets.py:net", "--data", "x.npy", "--out", "model.csv"],
        "written over",
    ),
    "plot over the data": ([*MODEL, "--data", "x.png", "--plot", "x.png", "--out", "r.csv"], "x.png: is read from"),
    "out is no CSV": ([*GOOD, "--out", "r.txt"], "r.txt.*end in .csv"),
    "no threads": ([*GOOD, "--threads", "0"], "--threads"),
    "no rows": ([*GOOD, "--top", "-5"], "--top"),
    "float labels": ([*MODEL, "--data", "floats.npz", "--loss", "cross-entropy"], "give integer labels"),
    "a loss that raises": ([*MODEL, "--data", "xy.npz", "--loss", "nets.py:boom"], "boom.*ValueError: broken"),
    "half a ranking": (["show", "half.csv"], "half.csv: .*incomplete"),
    "a broken record": (["show", "whole.csv"], "whole.json: not the record"),
    "plot of no known format": ([*GOOD, "--plot", "r.bmpx"], "no picture format '.bmpx'"),
    "ranking that is none": (["show", "model.pth"], "not a ranking"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(folder: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    """Exit 2, one line that says what and where, nothing written."""
    arguments, message = BAD[name]
    _spoiled(folder)
    before = sorted(path.name for path in folder.iterdir() if path.name != "__pycache__")
    outputs = [] if "--out" in arguments or arguments[0] in ("show", "shwo") else ["--out", "r.csv"]
    assert main([*arguments, *outputs]) == 2
    err = capsys.readouterr().err.strip().splitlines()
    assert len(err) == 1, err
    assert err[0].startswith("error: ")
    assert re.search(message, err[0])
    assert sorted(path.name for path in folder.iterdir() if path.name != "__pycache__") == before


def test_a_layer_that_never_runs_is_a_note_not_an_error(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _spoiled(folder)
    assert main(["idle.pth", "--arch", "nets.py:idle", "--data", "x.npy"]) == 0
    assert "spare never ran on this data" in capsys.readouterr().err


def test_debug_shows_the_traceback(folder: Path) -> None:
    from hessrank.errors import UnknownNameError

    with pytest.raises(UnknownNameError):
        main([*GOOD, "--loss", "slef", "--debug"])


def test_ctrl_c_in_the_middle_writes_nothing_and_exits_with_130(folder: Path) -> None:
    _spoiled(folder)
    command = ["body.pth", "--arch", "nets.py:Slow", "--data", "x.npy", "--estimator", "hutchinson"]
    command += ["--max-probes", "4096", "--num-samples", "1", "--tolerance", "1e-9", "--out", "r.csv"]
    code, err = interrupted(command, folder, sign="probes", HESSRANK_SAVE_SECONDS="3600")
    assert code == 130, err
    assert "interrupted: nothing was written" in err
    assert "Traceback" not in err
    assert not list(folder.glob("*r.csv*")) + list(folder.glob("*r.json*"))


def test_help_imports_no_torch() -> None:
    code = "import sys; from hessrank.cli import main; main(['--help']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_importing_hessrank_is_cheap_and_its_names_are_there() -> None:
    code = "import sys, hessrank; assert 'torch' not in sys.modules; [getattr(hessrank, n) for n in hessrank.__all__]"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("hessrank 0.")


def test_verify_and_compare(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*GOOD, "--out", "a.csv", "--bits", "4,8"]) == 0
    assert main([*GOOD, "--out", "b.csv", "--bits", "4", "--seed", "1"]) == 0
    command = ["verify", "model.pth", "a.csv", *GOOD[1:], "--out", "v.csv", "--plot", "v.png"]
    assert main(command) == 0
    out, err = capsys.readouterr()
    assert "predicted against measured" in out
    assert "wrote v.csv, v.png" in err
    assert set(pd.read_csv("v.csv")["bits"]) == {4, 8}
    assert main(["compare", "a.csv", "b.csv", "--out", "c.csv", "--plot", "c.png"]) == 0
    out, err = capsys.readouterr()
    assert "Spearman" in out
    assert "wrote c.csv, c.png" in err
    assert len(pd.read_csv("c.csv")) == 5


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["verify", "model.pth", "none.csv", *GOOD[1:]], "none.csv: there is no such file"),
        (["verify", "model.pth", "a.csv", *GOOD[1:], "--bits", "6"], "predicts nothing at 6 bits; it does at 4"),
        (["verify", "model.pth", "a.csv", *GOOD[1:], "--layer", "conv"], "no layer named 'conv'"),
        (["verify", "model.pth", "a.csv", *GOOD[1:], "--out", "a.csv"], "would be written over"),
        (["verify", "model.pth", "a.csv", *GOOD[1:], "--plot", "v.txt"], "no picture format"),
        (["compare", "a.csv", "none.csv"], "none.csv: there is no such file"),
        (["compare", "a.csv", "a.csv", "--by", "kind"], "no column to compare by named 'kind'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_verify_and_compare_explain_mistakes(
    folder: Path, capsys: pytest.CaptureFixture[str], command: list[str], message: str
) -> None:
    assert main([*GOOD, "--out", "a.csv", "--bits", "4"]) == 0
    capsys.readouterr()
    assert main(command) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("value", ["soon", "-1", "nan", "5 s"])
@pytest.mark.parametrize("name", ["HESSRANK_SAVE_SECONDS", "HESSRANK_PROGRESS_SECONDS"])
def test_an_environment_variable_that_is_no_number_gives_one_line(
    folder: Path, name: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, value)
    command = [*GOOD, "--num-samples", "1", "--out", "r.csv"]
    assert main(command) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith(f"error: environment variable {name}={value!r}: give seconds, a number from 0 up: ")
    remedy = told.rpartition(" ")[2]
    monkeypatch.setenv(*remedy.split("="))
    assert main(command) == 0


@pytest.mark.parametrize("command", ["", "rank", "policy", "check", "train", "export", "verify"])
def test_help_gives_flags_no_type(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command.split(), "--help"]) == 0
    out = capsys.readouterr().out
    assert "--help" in out
    assert "bool" not in out.lower()
