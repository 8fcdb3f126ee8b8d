"""The remedies that messages print: what they install is what the extras ask for, and pip takes them as printed."""

import re
import shlex
import subprocess
import sys
import tomllib
from importlib.metadata import requires
from pathlib import Path

import pytest
from helpers.places import ROOT
from packaging.requirements import Requirement

from hessrank import requirements
from hessrank.requirements import install_command

EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
WANTED = [Requirement(text) for name, extra in EXTRAS.items() if name != "dev" for text in extra]
SOURCES = [path for top in ("hessrank", "analysis", "quant", "distill") for path in (ROOT / top).rglob("*.py")]


def printed(command: str) -> list[Requirement]:
    """Return what a command installs."""
    words = shlex.split(command)
    return [Requirement(word) for word in words[words.index("install") + 1 :]]


@pytest.mark.parametrize("wanted", WANTED, ids=lambda one: one.name)
def test_a_remedy_installs_what_the_extra_asks_for(wanted: Requirement) -> None:
    assert printed(install_command(wanted.name)) == [wanted]
    assert printed(install_command(wanted.name.upper().replace("-", "_"))) == [wanted]


def test_pip_takes_it_as_printed() -> None:
    """All is installed where tests run, so pip has nothing to fetch."""
    command = install_command(*(one.name for one in WANTED))
    trial = f"{command} --dry-run --no-index --no-deps"
    done = subprocess.run(trial, shell=True, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("already satisfied") == len({one.name for one in WANTED})


def test_every_package_that_a_message_names_is_one_that_hessrank_knows() -> None:
    known = {Requirement(text).name for text in requires("hessrank") or ()}
    calls = [call for path in SOURCES for call in re.findall(r"install_command\(([^)]*)\)", path.read_text())]
    named = {name for call in calls for name in re.findall(r"^[\"']([\w-]+)[\"']", call)}
    assert {"rawpy", "pyhessian", "scikit-learn", "scikit-image", "transformers"} <= named <= known


def test_no_page_and_no_message_takes_hessrank_from_an_index() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").rglob("*.md")]
    for path in [*SOURCES, *pages, *(ROOT / "notebooks").glob("*.ipynb")]:
        assert not re.search(r"hessrank\[|install hessrank\b", path.read_text(encoding="utf-8")), path


def test_the_pip_is_that_of_this_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "pip"
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert install_command("rawpy") == shlex.join([sys.executable, "-m", "pip", "install", "rawpy>=0.24"])
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert install_command("rawpy") == "pip install 'rawpy>=0.24'"


def test_without_metadata_the_bare_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements, "requires", lambda _: None)
    assert install_command("rawpy").endswith("pip install rawpy")


def test_the_built_in_classification_finds_its_digits() -> None:
    assert "scikit-learn" in {Requirement(text).name for text in EXTRAS["train"]}
