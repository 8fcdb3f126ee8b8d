"""The commands of policies as a user meets them: what they write, what they say, how they exit."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from hessrank import load_model, prepare
from hessrank.cli import main
from hessrank.quant.export.check.runtime import execute
from hessrank.quant.policy import Policy

ARCH = """
from torch import nn

def net():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(144, 5))

class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 4)
    def forward(self, x):
        y = self.a(x)
        if y.sum() > 1e9:
            y = -y
        return y
"""
MODEL = ["model.pth", "--arch", "nets.py:net", "--data", "x.npy"]
BRANCHING = ["branching.pth", "--arch", "nets.py:Branching", "--data", "v.npy"]
POLICIES = {
    "good.yaml": "extra_quantizer_dict: {special_layer: {input_layer: 10, '3': {weight: 4}}}",
    "other.yaml": "extra_quantizer_dict:\n  special_layer:\n    conv9: {weight: 8}\n",
    "idle.yaml": "extra_quantizer_dict:\n  special_layer:\n    '1': {weight: 8}\n",
    "wide.yaml": "extra_quantizer_dict:\n  special_layer:\n    '0': {weight: 20}\n",
    "broken.yaml": "extra_quantizer_dict: [\n",
}


@pytest.fixture(scope="module")
def ranked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two networks, their data, a ranking of each, and policies."""
    folder = tmp_path_factory.mktemp("ranked")
    before = Path.cwd()
    os.chdir(folder)
    try:
        Path("nets.py").write_text(ARCH)
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
        torch.save(model.state_dict(), "model.pth")
        torch.save({"a.weight": torch.randn(4, 4), "a.bias": torch.zeros(4)}, "branching.pth")
        np.save("x.npy", torch.randn(6, 3, 8, 8).numpy())
        np.save("v.npy", torch.randn(6, 4).numpy())
        for name, text in POLICIES.items():
            Path(name).write_text(text)
        Path("latency.csv").write_text("layer,bits,latency\n0,4,1\n0,8,2\n3,4,1\n3,8,3\n")
        assert main([*MODEL, "--out", "r.csv", "--max-probes", "4"]) == 0
        assert main([*BRANCHING, "--out", "branching.csv", "--max-probes", "4"]) == 0
        shutil.copy("r.csv", "alone.csv")
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def folder(ranked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of all that, as the working directory."""
    shutil.copytree(ranked, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path().iterdir() if path.is_file()}


def test_a_policy_is_printed_or_written_and_the_two_are_the_same(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["policy", "r.csv"]) == 0
    printed, told = capsys.readouterr()
    assert main(["policy", "r.csv", "--out", "p.yaml"]) == 0
    out, err = capsys.readouterr()
    assert Path("p.yaml").read_text() == printed
    assert out == told
    lines = [line.strip() for line in out.splitlines() if line.strip(" ─")]
    assert [line.split()[0] for line in lines[:5]] == ["size", "BOPs", "mean", "in", "increase"]
    assert lines[3] == "in float   0 tensors"
    names = ["this policy", "uniform 8", "uniform at the same BOPs", "budget at the same BOPs"]
    assert all(line.startswith(name) for line, name in zip(lines[6:], names, strict=True))
    assert "wrote p.yaml" in err
    read = Policy.read("p.yaml")
    assert read.input_scheme is not None
    assert read.distill_config == ("1",)


def test_a_dry_run_prints_the_costs_and_writes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files()
    assert main(["policy", "r.csv", "--dry-run", "--out", "p.yaml", "--pareto", "f.csv"]) == 0
    assert "of float" in capsys.readouterr().out
    assert files() == before


@pytest.mark.parametrize(
    "options",
    [
        ["--strategy", "top-k", "--count", "1", "--by", "trace"],
        ["--strategy", "threshold", "--above", "1e-9"],
        ["--strategy", "budget", "--budget-mean-bits", "6", "--bits", "4,8"],
        ["--strategy", "budget", "--budget-size-mib", "0.0032"],
        ["--strategy", "budget", "--latency", "latency.csv", "--budget-latency", "4", "--bits", "4,8"],
        ["--distill", "top-trace", "--distill-count", "1", "--distill-coeff", "0.5"],
        ["--weight-scheme", "per_tensor_symmetric", "--method", "lsq", "--observer", "mse"],
    ],
    ids=lambda options: " ".join(options[:3]),
)
def test_options_make_a_policy_that_check_accepts(folder: Path, options: list[str]) -> None:
    assert main(["policy", "r.csv", *options, "--out", "p.yaml"]) == 0
    assert main(["check", "p.yaml", *MODEL]) == 0


def test_the_bits_are_a_picture(folder: Path) -> None:
    assert main(["policy", "r.csv", "--out", "p.yaml", "--bit-map", "bits.png"]) == 0
    assert Path("bits.png").read_bytes().startswith(b"\x89PNG")


def test_the_frontier_is_a_table_and_a_picture(folder: Path) -> None:
    assert main(["policy", "r.csv", "--pareto", "f.csv", "--plot", "f.png", "--bits", "4,8"]) == 0
    frame = pd.read_csv("f.csv")
    assert list(frame.columns[:2]) == ["bops", "damage"]
    assert frame["bops"].is_monotonic_increasing
    assert frame["damage"].is_monotonic_decreasing
    assert Path("f.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["nowhere.csv"], "nowhere.csv: there is no such file"),
        (["x.npy"], "x.npy: .*not a ranking"),
        (["alone.csv"], "keep ranking.json beside ranking.csv"),
        (["branching.csv"], "nothing in this network can be quantized: torch.fx cannot trace it"),
        (["r.csv", "--strategy", "budgett"], "no strategy named 'budgett'; nearest is 'budget'"),
        (["r.csv", "--strategy", "budget"], "needs a budget, as --budget-bops"),
        (["r.csv", "--strategy", "budget", "--budget-bops", "1"], "BOPs 1 is impossible: the least possible is"),
        (["r.csv", "--budget-bops", "1e9"], "takes no option 'budget_bops'; the strategy 'budget' or 'middle' does"),
        (["r.csv", "--strategy", "budget", "--budget-mean-bits", "6", "--bits", "3,8"], "nothing for 3 bits"),
        (["r.csv", "--strategy", "budget", "--latency", "latency.csv"], "takes both"),
        (["r.csv", "--strategy", "budget", "--latency", "none.csv", "--budget-latency", "4"], "none.csv"),
        (["r.csv", "--bits", "a"], "--bits 'a': write bit-widths"),
        (["r.csv", "--high-bits", "17"], "bit-widths run from 2 to 16"),
        (["r.csv", "--distill", "tali"], "nearest is 'tail'"),
        (["r.csv", "--method", "lsqq"], "nearest is 'lsq'"),
        (["r.csv", "--activation-scheme", "per_channel_affine"], "no integer kernel has a scale per channel"),
        (["r.csv", "--out", "p.txt"], "let its name end in .yaml"),
        (["r.csv", "--out", "nowhere/p.yaml"], "there is no folder 'nowhere'"),
        (["r.csv", "--pareto", "r.csv"], "would be written over"),
        (["r.csv", "--plot", "f.png"], "give --pareto frontier.csv too"),
        (["r.csv", "--out", "p.yaml", "--pareto", "f.csv", "--pareto-cost", "bobs"], "nearest is 'bops'"),
        (["r.csv", "--out", "p.yaml", "--pareto", "f.csv", "--pareto-cost", "latency"], "--latency table.csv"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_in_a_policy_is_one_line_and_leaves_nothing(
    folder: Path, options: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(["policy", *options], says, capsys)


def refused(command: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = files()
    assert main(command) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert re.search(says, err)
    assert files() == before


def test_check_lists_what_stays_in_float(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "good.yaml", *MODEL]) == 0
    out = capsys.readouterr().out
    assert "2 weights and 3 activations are quantized" in out
    assert "activation of 0  computed in one kernel with 1" in out


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        ("other.yaml", "other.yaml:3:5: no layer named 'conv9'"),
        ("idle.yaml", "idle.yaml:3:19: warning: the weight of '1' does nothing: ReLU has none"),
    ],
)
def test_check_exits_with_1_when_it_finds_something(
    folder: Path, policy: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", policy, *MODEL]) == 1
    *_, finding, count = capsys.readouterr().out.splitlines()
    assert finding.startswith(says)
    assert count.startswith("1 finding")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["wide.yaml", *MODEL], "wide.yaml:3:19: weight: 20 bits"),
        (["broken.yaml", *MODEL], "broken.yaml:2:1: is not YAML"),
        (["nowhere.yaml", *MODEL], "nowhere.yaml: there is no such file"),
        (["good.yaml", "model.pth"], "--arch"),
        (["good.yaml", *MODEL[:3]], "no data: give --data"),
        (["good.yaml", *BRANCHING], r"nets.py:13: if y.sum\(\) > 1e9:: torch.fx cannot trace this"),
    ],
    ids=["bits", "yaml", "no-file", "no-arch", "no-data", "untraceable"],
)
def test_check_exits_with_2_when_it_cannot_look(
    folder: Path, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(["check", *arguments], says, capsys)


def test_the_schema_needs_no_policy(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--schema"]) == 0
    assert "extra_quantizer_dict" in json.loads(capsys.readouterr().out)["properties"]


def test_an_export_is_checked_and_reported(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime")
    assert main(["export", *MODEL, "--policy", "good.yaml", "--out", "m.onnx", "--scales", "s.json"]) == 0
    out, err = capsys.readouterr()
    assert "onnxruntime, 3 layers on equal inputs" in out
    assert "wrote s.json" in err
    assert Path("m.onnx").stat().st_size > 100
    assert json.loads(Path("s.json").read_text())


def test_what_was_trained_is_what_is_exported(folder: Path) -> None:
    pytest.importorskip("onnxruntime")
    trained = prepare(
        load_model("model.pth", arch="nets.py:net").model, "good.yaml", torch.from_numpy(np.load("x.npy"))
    )
    with torch.no_grad():
        trained.get_parameter("3.bias").add_(1.0)
    torch.save(trained.state_dict(), "trained.pth")
    export = ["export", *MODEL, "--policy", "good.yaml"]
    assert main([*export, "--out", "m.onnx"]) == 0
    assert main([*export, "--out", "t.onnx", "--state", "trained.pth"]) == 0
    assert Path("m.onnx").read_bytes() != Path("t.onnx").read_bytes()
    result = execute(Path("t.onnx").read_bytes(), {"input": torch.from_numpy(np.load("x.npy"))[:1]})
    expected = trained.eval()(torch.from_numpy(np.load("x.npy"))[:1])
    torch.testing.assert_close(next(iter(result.values())), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([*MODEL, "--policy", "good.yaml", "--out", "m.onnx", "--state", "model.pth"], "holds no quantizers"),
        ([*MODEL, "--policy", "other.yaml", "--out", "m.onnx"], "other.yaml:3:5: no layer named 'conv9'"),
        ([*MODEL, "--policy", "good.yaml", "--out", "m.txt"], "let its name end in .onnx"),
        ([*MODEL, "--policy", "good.yaml", "--out", "nowhere/m.onnx"], "there is no folder 'nowhere'"),
        ([*MODEL, "--policy", "good.yaml", "--out", "m.onnx", "--scales", "nowhere/s.json"], "no folder"),
        (
            [*MODEL, "--policy", "good.yaml", "--out", "m.onnx", "--num-samples", "0"],
            "num_samples is 0|--num-samples",
        ),
        ([*MODEL, "--policy", "good.yaml"], "--out"),
        ([*BRANCHING, "--policy", "good.yaml", "--out", "m.onnx"], "torch.fx cannot trace this"),
    ],
    ids=["float-state", "other-model", "ending", "folder", "scales", "no-samples", "no-out", "untraceable"],
)
def test_a_mistake_in_an_export_is_one_line_and_leaves_nothing(
    folder: Path, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime")
    refused(["export", *arguments], says, capsys)
