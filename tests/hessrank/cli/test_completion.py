"""What bash completes once the completion is installed: commands and options; files are left to bash."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import shellingham

from hessrank.cli import main

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")

PROGRAM = f'#!/bin/sh\nexec "{sys.executable}" -m hessrank "$@"\n'
COMPLETE = """
source ~/.bashrc
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
_hessrank_completion hessrank
printf '%s\\n' "${COMPREPLY[@]}"
complete -p hessrank >&2
"""


def bash(home: Path, script: str, *words: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "HOME": str(home), "PATH": f"{home / 'bin'}:{os.environ['PATH']}"}
    command = ["bash", "--norc", "-c", f"{script}\n:", "bash", *words]
    return subprocess.run(command, env=env, cwd=home, capture_output=True, text=True, check=True)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home folder in which the completion is installed."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "bin").mkdir()
    (folder / "bin" / "hessrank").write_text(PROGRAM)
    (folder / "bin" / "hessrank").chmod(0o755)
    done = bash(folder, "hessrank --install-completion && echo done")
    assert "bash completion installed" in done.stdout
    assert "done" in done.stdout
    return folder


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        (["ra"], ["rank"]),
        (["s"], ["show", "study"]),
        (["mod"], []),
        (["model.pth", "--arch-"], ["--arch-args"]),
        (["--arch", "nets.py:net", "--max"], ["--max-probes"]),
        (["rank", "mod"], []),
        (["rank", "model.pth", "--no"], ["--no-weights"]),
        (["rank", "model.pth", "--data", "x"], []),
        (["policy", "r.csv", "--pareto"], ["--pareto", "--pareto-cost"]),
        (["shwo", "--plo"], ["--plot", "--plot-top"]),
    ],
    ids=" ".join,
)
def test_commands_and_options_are_completed_and_files_left_to_bash(
    home: Path, line: list[str], offered: list[str]
) -> None:
    done = bash(home, COMPLETE, "hessrank", *line)
    assert done.stdout.split() == offered
    assert done.stderr == "complete -o default -F _hessrank_completion hessrank\n"


def test_the_script_can_be_shown(home: Path) -> None:
    shown = bash(home, "hessrank --show-completion").stdout
    assert shown.strip() == (home / ".bash_completions" / "hessrank.sh").read_text().strip()


def test_a_shell_that_is_not_known_is_a_mistake(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise shellingham.ShellDetectionFailure

    monkeypatch.setattr(shellingham, "detect_shell", fail)
    assert main(["--show-completion"]) == 2
    assert "not supported" in capsys.readouterr().err


def test_a_home_that_cannot_be_written_to_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "file" / "home"))
    monkeypatch.setattr(shellingham, "detect_shell", lambda: ("bash", "bash"))
    assert main(["--install-completion"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: --install-completion: ")
    assert err.count("\n") == 1
