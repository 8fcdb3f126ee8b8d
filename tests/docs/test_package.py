"""The house: what is installed, and what the tree promises."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import networkx as nx
from helpers.modules import FILES, FOLDERS, MODULES, name_of
from helpers.places import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def imported(text: str) -> set[str]:
    """Return the modules of ours that a module imports, late and for types only too."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= inner & MODULES.keys() or {node.module}
    return found & MODULES.keys()


def test_every_folder_with_code_is_installed_under_hessrank() -> None:
    expected = {name_of(path) for path in FILES if path.name == "__init__.py"}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == expected
    assert PROJECT["tool"]["setuptools"]["package-dir"] == {package: top for top, package in FOLDERS.items()}


def test_no_import_runs_in_a_circle() -> None:
    graph = nx.DiGraph((name, other) for name, text in MODULES.items() for other in imported(text))
    assert [sorted(circle) for circle in nx.strongly_connected_components(graph) if len(circle) > 1] == []


def test_no_folder_holds_more_files_than_one_sees_at_once() -> None:
    folders = [path.parent for path in FILES]
    assert {str(folder): folders.count(folder) for folder in folders if folders.count(folder) > 18} == {}


def test_no_module_is_longer_than_one_reads_at_a_time() -> None:
    assert {str(path): len(text.splitlines()) for path, text in FILES.items() if len(text.splitlines()) > 300} == {}


def test_no_public_class_shares_its_name_with_another() -> None:
    classes: dict[str, list[str]] = {}
    for path, text in FILES.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                classes.setdefault(node.name, []).append(str(path))
    assert {name: paths for name, paths in classes.items() if len(paths) > 1} == {}


def test_every_module_speaks_for_itself() -> None:
    assert [str(path) for path, text in FILES.items() if ast.get_docstring(ast.parse(text)) is None] == []


def test_generic_names_do_not_land_in_site_packages(tmp_path: Path) -> None:
    """From a folder that has its own `analysis`, ours is still hessrank.analysis."""
    (tmp_path / "analysis").mkdir()
    (tmp_path / "analysis" / "__init__.py").write_text("mine = True\n")
    code = "import analysis, hessrank.network.layer_names as ours; assert analysis.mine; print(ours.__name__)"
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "hessrank.network.layer_names"
