"""Everything the README says is executed."""

import re
import shlex
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import torch
from torch import nn

from hessrank.analysis.estimators import ESTIMATORS
from hessrank.analysis.losses import LOSSES
from hessrank.analysis.ranking import COLUMNS, Ranking
from hessrank.analysis.tables import as_text
from hessrank.cli import main

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
mpl.use("Agg")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the README's commands name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / "nets.py").write_text(
        "from torch import nn\n\ndef net(width=8):\n"
        "    return nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), "
        "nn.Linear(16 * width, 10))\n"
    )
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128, 10))
    torch.save(model.state_dict(), "model.pth")
    np.save("samples.npy", torch.randn(4, 3, 32, 32).numpy())
    np.savez("labeled.npz", input=torch.randn(4, 3, 32, 32).numpy(), label=np.arange(4))
    return tmp_path


def test_the_commands_run(folder: Path) -> None:
    commands = [line for block in blocks("bash") for line in block.splitlines() if line]
    assert len(commands) >= 5
    for command in commands:
        program, *arguments = shlex.split(command)
        assert program == "hessrank"
        assert main(arguments) == 0, command


def test_the_python_runs(folder: Path) -> None:
    (code,) = blocks("python")
    namespace: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), namespace)
    assert (folder / "ranking.csv").exists()
    assert (folder / "ranking.png").exists()
    assert isinstance(namespace["by_task"], Ranking)


def test_the_table_is_what_the_command_prints(folder: Path) -> None:
    assert main(shlex.split(blocks("bash")[0])[1:]) == 0
    printed = as_text(Ranking.read("ranking.csv"), top=10, width=118)
    shown = blocks("text")[0].splitlines()
    for line, expected in zip(printed.splitlines()[:15], shown[:15], strict=True):
        # the last digits of a trace may differ from one processor to the next
        assert re.sub(r"[\d.e+█·-]+", "#", line).split() == re.sub(r"[\d.e+█·-]+", "#", expected).split()


def test_the_make_targets_exist() -> None:
    targets = re.findall(r"^    make (\w+)", README, flags=re.MULTILINE)
    assert targets == ["demo", "test"]
    makefile = (ROOT / "Makefile").read_text()
    assert all(re.search(rf"^{target}:", makefile, flags=re.MULTILINE) for target in targets)


def test_names_are_complete_and_links_lead_somewhere() -> None:
    for name in [*COLUMNS, *ESTIMATORS, *LOSSES]:
        assert name in README, name
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    for link in links:
        assert (ROOT / link).exists(), link


@pytest.mark.parametrize("document", sorted(p.name for p in (ROOT / "docs").glob("*.md")))
def test_commands_in_the_docs_name_real_modules(document: str) -> None:
    text = (ROOT / "docs" / document).read_text(encoding="utf-8")
    for module in re.findall(r"python -m benchmarks\.(\w+)", text):
        assert (ROOT / "benchmarks" / f"{module}.py").exists(), module
