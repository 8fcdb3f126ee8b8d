"""Everything the README says is executed."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import torch
from helpers.places import ROOT
from torch import nn

from hessrank.analysis.estimators import ESTIMATORS
from hessrank.analysis.losses import LOSSES
from hessrank.analysis.result.ranking import Ranking
from hessrank.analysis.result.ranking_table import COLUMNS
from hessrank.analysis.result.tables import as_text
from hessrank.cli import main
from hessrank.quant.bit_choice.make_policy import make_policy
from hessrank.quant.bit_choice.strategies import STRATEGIES
from hessrank.quant.prepare import QuantizedModel
from hessrank.quant.quantizers import QUANTIZERS

README = (ROOT / "README.md").read_text(encoding="utf-8")
mpl.use("Agg")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


FIRST, *OTHERS = [shlex.split(line) for block in blocks("bash") for line in block.splitlines() if line]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where the README's first command has run, as `make demo` runs it."""
    folder = tmp_path_factory.mktemp("demo")
    (folder / "examples").symlink_to(ROOT / "examples")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(FIRST[1:]) == 0
    return folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the README's other commands name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets.py").write_text(
        "from torch import nn\n\ndef net(width=8):\n"
        "    return nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), "
        "nn.Linear(16 * width, 10))\n"
    )
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128, 10))
    torch.save(model.state_dict(), "model.pth")
    np.save("samples.npy", torch.randn(4, 3, 32, 32).numpy())
    np.savez("labeled.npz", inputs=torch.randn(4, 3, 32, 32).numpy(), targets=np.arange(4))
    for name, content in zip(("float.yaml", "run.yaml"), blocks("yaml")[1:], strict=True):
        (tmp_path / name).write_text(content)
    changed = {"base": {"task": "classification", "epochs": 1, "task_args": {"samples": 16}, "pictures": 0}}
    uniform = {"policies": {"low": {"strategy": "uniform"}}, "experiments": {"low": {"policy": "low"}}}
    (tmp_path / "study.yaml").write_text(json.dumps({**changed, **uniform, "seeds": [0, 1], "ranking_samples": 2}))
    return tmp_path


def test_the_other_commands_run(folder: Path) -> None:
    assert len(OTHERS) >= 4
    for program, *arguments in OTHERS:
        if program == "torchrun":
            command = [sys.executable, "-m", "torch.distributed.run", *arguments]
            subprocess.run(command, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
            continue
        assert program == "hessrank"
        assert main(arguments) == 0, arguments


def test_the_python_runs(folder: Path) -> None:
    namespace: dict[str, object] = {}
    for code in blocks("python"):
        exec(compile(code, "README.md", "exec"), namespace)
    assert (folder / "ranking.csv").exists()
    assert (folder / "ranking.png").exists()
    assert (folder / "model.onnx").exists()
    assert isinstance(namespace["by_task"], Ranking)
    assert isinstance(namespace["prepared"], QuantizedModel)
    assert isinstance(namespace["trained"], QuantizedModel)


def test_the_table_is_what_the_first_command_gives(demo: Path) -> None:
    """Layers and their places; the last digits of a trace may differ from one processor to the next."""
    printed = as_text(Ranking.read(demo / "ranking.csv"), top=10, width=118)
    texts = (printed, blocks("text")[0])
    names = [re.findall(r"^ *\d+ (?:\(\d+–\d+\))? *(\S+) +[\d.]+e", text, flags=re.MULTILINE) for text in texts]
    assert names[0] == names[1]
    assert len(names[0]) == 10


def test_the_policy_is_what_the_ranking_gives(demo: Path) -> None:
    written = str(make_policy(Ranking.read(demo / "ranking.csv"), base_bits=4))
    entries = [line.split("#")[0].rstrip() for line in written.splitlines()]
    shown = blocks("yaml")[0]
    for line in shown.splitlines():
        assert line in entries, line


def test_the_first_command_writes_what_it_says(demo: Path) -> None:
    assert {"ranking.csv", "ranking.json", "ranking.png"} <= {path.name for path in demo.iterdir()}


def test_the_make_targets_exist() -> None:
    targets = re.findall(r"^    make (\w+)", README, flags=re.MULTILINE)
    assert targets == ["demo", "test"]
    makefile = (ROOT / "Makefile").read_text()
    assert all(re.search(rf"^{target}:", makefile, flags=re.MULTILINE) for target in targets)


def test_names_are_complete_and_links_lead_somewhere() -> None:
    for name in [*COLUMNS, *ESTIMATORS, *LOSSES, *STRATEGIES, *QUANTIZERS]:
        assert name in README, name
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    for link in links:
        assert (ROOT / link).exists(), link


@pytest.mark.parametrize("document", sorted(p.name for p in (ROOT / "docs").glob("*.md")))
def test_commands_in_the_docs_name_real_modules(document: str) -> None:
    text = (ROOT / "docs" / document).read_text(encoding="utf-8")
    for module in re.findall(r"python -m benchmarks\.(\w+)", text):
        folder = ROOT / "benchmarks"
        assert (folder / f"{module}.py").exists() or (folder / module / "__main__.py").exists(), module
