"""Standard streams that are closed, full, broken or poor: files are written as ever, and the exit status tells."""

from __future__ import annotations

import errno
import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.hand_graphs import TWO_STAGES, ranking_of
from torch import nn

import hessrank.cli
from hessrank.cli import main
from hessrank.errors import OptionError
from hessrank.terminal import say

ARCH = """
from torch import nn

def net():
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
"""
RANK = ["model.pth", "--arch", "nets.py:net", "--data", "x.npy", "--out", "r.csv"]
SHOW = ["show", "s.csv", "--plot", "s.png"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a network, data and a ranking, as the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets.py").write_text(ARCH)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    torch.save(model.state_dict(), tmp_path / "model.pth")
    np.save(tmp_path / "x.npy", torch.randn(2, 3).numpy())
    ranking_of(TWO_STAGES, {"A.act": 1.0}).to_csv(tmp_path / "s.csv")
    return tmp_path


def under_a_shell(arguments: list[str], streams: str) -> subprocess.CompletedProcess[str]:
    """Run ``hessrank`` with streams as a shell would set them."""
    command = shlex.join([sys.executable, "-m", "hessrank", *arguments])
    return subprocess.run(
        ["bash", "-c", f"{command} {streams}; exit ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


CASES = {
    "a broken pipe": (RANK, "| true", "error: standard output cannot be written to (Broken pipe)"),
    "all closed": (RANK, ">&- 2>&- <&-", ""),
    "a picture, all closed": (SHOW, ">&- 2>&- <&-", ""),
    "both full": (["--version"], ">/dev/full 2>/dev/full", ""),
    "the version": (["--version"], ">/dev/full", "error: standard output cannot be written to (No space left"),
    "the help": (["policy", "--help"], "| true", "error: standard output cannot be written to (Broken pipe)"),
    "the schema": (["check", "--schema"], ">/dev/full", "error: standard output cannot be written to (No space left"),
}


@pytest.mark.parametrize("name", CASES)
def test_the_work_is_done_and_the_status_is_2(folder: Path, name: str) -> None:
    arguments, streams, told = CASES[name]
    there = {path.name for path in folder.iterdir()}
    done = under_a_shell(arguments, streams)
    assert done.returncode == 2, done.stderr
    assert told in done.stderr
    assert done.stderr.count("error: ") == bool(told)
    assert "Traceback" not in done.stderr
    assert "ignored" not in done.stderr
    made = {path.name for path in folder.iterdir()} - there - {"__pycache__"}
    assert made == {RANK[0]: {"r.csv", "r.json"}, "show": {"s.png"}}.get(arguments[0], set())
    for path in made:
        assert (folder / path).read_bytes()[:4] in (b"rank", b'{\n "', b"\x89PNG")


def test_a_pipe_that_takes_all_is_no_failure(folder: Path) -> None:
    done = under_a_shell(["show", "s.csv"], "<&- | cat")
    assert (done.returncode, done.stderr) == (0, "")
    assert "layers by trace" in done.stdout


def test_a_terminal_with_ascii_letters_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", out)
    assert main(["show", "s.csv"]) == 0
    assert sys.stdout is out
    written = out.buffer.getvalue().decode("ascii")  # type: ignore[attr-defined]
    assert "#.........." not in written
    assert "##########" in written
    assert r"\xb1" in written  # ±, in the caption


@pytest.mark.parametrize("closed", ["stdout", "stderr"])
def test_code_that_closes_a_stream_closes_nothing(
    closed: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def close(**_: Any) -> None:
        getattr(sys, closed).close()
        say("a", err=closed == "stderr")

    monkeypatch.setattr(hessrank.cli, "app", close)
    assert main(["show"]) == 0
    assert "a\n" in capsys.readouterr()


class Full(io.StringIO):
    """A stream on a full disk."""

    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_an_error_and_a_full_output_are_told_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(**_: Any) -> None:
        say("a")
        raise OptionError("wrong\x1b\nhere")

    monkeypatch.setattr(hessrank.cli, "app", fail)
    monkeypatch.setattr(sys, "stdout", Full())
    assert main(["show"]) == 2
    assert capsys.readouterr().err == "error: wrong� here\n"


@pytest.mark.parametrize("poor", ["stdout", "stderr"])
@pytest.mark.parametrize("stream", [None, Full()], ids=["closed", "full"])
def test_what_found_1_and_could_not_show_it_ends_with_2(
    poor: str, stream: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the same process, without standard error too; and a stream that nobody wanted to write to is no failure."""

    def find(**_: Any) -> int:
        say("a", err=poor == "stderr")
        return 1

    monkeypatch.setattr(hessrank.cli, "app", find)
    assert main(["check"]) == 1
    monkeypatch.setattr(sys, poor, stream)
    assert main(["check"]) == 2
    assert getattr(sys, poor) is stream
    monkeypatch.setattr(hessrank.cli, "app", lambda **_: 0)
    assert main(["check"]) == 0


UNFORESEEN = {
    "a bug": (ZeroDivisionError("by\n0"), "ZeroDivisionError: by 0: this is a bug of hessrank, .* with --debug"),
    "a full disk": (OSError(errno.ENOSPC, "No space left", "a.csv"), "a.csv: no space left on the disk: make room"),
    "too many files": (OSError(errno.EMFILE, "Too many open files"), "Too many open files, and start"),
    "no such file": (FileNotFoundError(errno.ENOENT, "No such file", "b"), "FileNotFoundError.*bug"),
    "memory": (MemoryError(), r"out of memory \(MemoryError\)"),
    "torch's memory": (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "out of memory .*fewer samples"),
    "recursion": (RecursionError("maximum recursion depth"), "too deeply nested"),
    "sys.exit": (SystemExit(0), r"ended from within \(SystemExit: 0\)"),
    "not even an exception": (GeneratorExit(), "GeneratorExit: .*bug"),
}


@pytest.mark.parametrize("name", UNFORESEEN)
def test_what_nobody_foresaw_is_one_line(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error, told = UNFORESEEN[name]

    def fail(**_: Any) -> None:
        raise error

    monkeypatch.setattr(hessrank.cli, "app", fail)
    assert main(["show"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert re.match(f"error: .*{told}", err)
    with pytest.raises(type(error)):
        main(["show", "--debug"])
