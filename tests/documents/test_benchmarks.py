"""The benchmarks run. What they measure is for a quiet machine, not for a test; but they must not rot."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "name",
    [
        "agreement",
        "allocation",
        "cost",
        "curved",
        "export",
        "help",
        "peers",
        "policies",
        "qat_step",
        "scale",
        "train_step",
    ],
)
def test_a_benchmark_prints_its_table_and_keeps_it(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", f"benchmarks.{name}", "--quick", "--out", str(tmp_path / "table.csv")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
    assert run.returncode == 0, run.stderr
    assert "| ---" in run.stdout
    assert "torch" in run.stdout
    assert (tmp_path / "table.csv").stat().st_size > 0


def test_every_figure_on_the_page_has_a_command() -> None:
    page = (ROOT / "docs" / "figures.md").read_text(encoding="utf-8")
    folder = ROOT / "benchmarks"
    names = {module.stem for module in folder.glob("*.py") if 'if __name__ == "__main__"' in module.read_text()}
    for name in names | {package.parent.name for package in folder.glob("*/__main__.py")}:
        assert f"python -m benchmarks.{name}" in page, name
