"""The house: what is installed, and what the tree promises."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FOLDERS = {
    "hessrank": "hessrank",
    "analysis": "hessrank.analysis",
    "quant": "hessrank.quant",
    "distill": "hessrank.distill",
}


def test_every_folder_with_code_is_installed_under_hessrank() -> None:
    expected = {}
    for top, package in FOLDERS.items():
        for init in (ROOT / top).rglob("__init__.py"):
            inner = init.parent.relative_to(ROOT / top).parts
            expected[".".join([package, *inner])] = "/".join([top, *inner])
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == set(expected)
    assert PROJECT["tool"]["setuptools"]["package-dir"] == expected


@pytest.mark.parametrize("folder", ["analysis", "quant", "hessrank", "distill"])
def test_the_arrows_point_forward(folder: str) -> None:
    """Analysis knows nothing of quant and distill; only the front door knows all."""
    forbidden = {
        "analysis": ["quant", "distill", "cli"],
        "quant": ["distill", "cli"],
        "distill": ["cli"],
        "hessrank": [],
    }[folder]
    for path in (ROOT / folder).rglob("*.py"):
        for name in forbidden:
            assert f"hessrank.{name}" not in path.read_text(), f"{path} imports hessrank.{name}"


def test_every_module_is_typed_small_and_speaks_for_itself() -> None:
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text()
            assert len(text.splitlines()) <= 400, path
            assert text.lstrip().startswith('"""'), path


def test_generic_names_do_not_land_in_site_packages(tmp_path: Path) -> None:
    """From a folder that has its own `analysis`, ours is still hessrank.analysis."""
    (tmp_path / "analysis").mkdir()
    (tmp_path / "analysis" / "__init__.py").write_text("mine = True\n")
    code = "import analysis, hessrank.analysis.layers as ours; assert analysis.mine; print(ours.__name__)"
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "hessrank.analysis.layers"
