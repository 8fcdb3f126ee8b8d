"""A user's code may do anything: one line says what it raised, and what it changed in the process is put back."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import warnings
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import hessrank
from hessrank.analysis.losses import make_loss
from hessrank.cli import main
from hessrank.errors import DataError, HessrankError, LoadError, LossError, OptionError
from hessrank.user_code import explain_errors, user_code

HEAD = "import os, sys, signal, random, warnings\nimport numpy as np\nimport torch\nfrom torch import nn\n"
NET = "def make():\n    return nn.Linear(2, 2)\n"
RAISED = {
    "an error": ("raise ValueError('no')", "raised ValueError: no"),
    "an exit": ("sys.exit(3)", "raised SystemExit: 3"),
    "a base exception": ("raise BaseException('all')", "raised BaseException: all"),
    "a group": ("raise ExceptionGroup('two', [ValueError('a'), TypeError('b')])", "ExceptionGroup of ValueError: a"),
    "lines and escapes": ("raise ValueError('a\\nb\\x1b[31m')", r"raised ValueError: a b�\[31m"),
    "endless recursion": ("def f(): f()\nf()", "raised RecursionError"),
    "no text": (
        "class Bad(Exception):\n    def __str__(self): raise RuntimeError('in str')\nraise Bad()",
        "importing it raised Bad",
    ),
    "no Python": ("\n\ndef (", r"raised SyntaxError: \S*net\.py:7: "),
    "half a character": ("raise ValueError('\\ud800')", "raised ValueError: �"),
}


def weights(folder: Path) -> Path:
    torch.save(nn.Linear(2, 2).state_dict(), folder / "w.pth")
    return folder / "w.pth"


@pytest.mark.parametrize(("code", "message"), RAISED.values(), ids=RAISED)
def test_whatever_an_import_raises_is_one_line(code: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(f"{HEAD}{code}\n")
    with pytest.raises(LoadError, match=message) as caught:
        hessrank.load_model(weights(tmp_path), arch=f"{tmp_path / 'net.py'}:make")
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match=message):
        hessrank.load_data(f"{tmp_path / 'net.py'}:make")
    with pytest.raises(OptionError, match=message):
        make_loss(f"{tmp_path / 'net.py'}:make")


@pytest.mark.parametrize("raised", [KeyboardInterrupt(), BaseExceptionGroup("two", [KeyboardInterrupt()])])
def test_an_interrupt_stays_one(raised: BaseException) -> None:
    with pytest.raises(KeyboardInterrupt), user_code("the loss", LossError):
        raise raised


@pytest.mark.parametrize("raised", [MemoryError(), torch.OutOfMemoryError("much"), LossError("ours")])
def test_a_lack_of_memory_and_errors_of_ours_go_through(raised: Exception) -> None:
    with pytest.raises(type(raised)) as caught, explain_errors("the loss", DataError):
        raise raised
    assert caught.value is raised


CHANGES = {
    "the folder": ("os.chdir('/')", os.getcwd),
    "the default type": ("torch.set_default_dtype(torch.float64)", torch.get_default_dtype),
    "the default device": ("torch.set_default_device('meta')", torch.get_default_device),
    "gradients": ("torch.set_grad_enabled(False)", torch.is_grad_enabled),
    "determinism": ("torch.use_deterministic_algorithms(True)", torch.are_deterministic_algorithms_enabled),
    "threads": ("torch.set_num_threads(torch.get_num_threads() + 1)", torch.get_num_threads),
    "torch's random numbers": ("torch.manual_seed(5)", lambda: torch.get_rng_state().tolist()),
    "NumPy's random numbers": ("np.random.seed(5)", np.random.get_state()[1].tolist),  # type: ignore[index]
    "Python's random numbers": ("random.seed(5)", random.getstate),
    "a handler": ("signal.signal(signal.SIGTERM, print)", lambda: signal.getsignal(signal.SIGTERM)),
    "warnings": ("warnings.simplefilter('error')", lambda: list(warnings.filters)),
    "recursion": ("sys.setrecursionlimit(5000)", sys.getrecursionlimit),
    "a stream": ("sys.stdout = None", lambda: sys.stdout),
}


@pytest.mark.parametrize(("code", "state"), CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("fails", [False, True], ids=["and works", "and fails"])
def test_what_a_network_s_code_changes_is_put_back(code: str, state, fails: bool, tmp_path: Path) -> None:
    end = "    raise ValueError\n" if fails else "    return nn.Linear(2, 2, device='cpu')\n"
    (tmp_path / "net.py").write_text(f"{HEAD}{code}\ndef make():\n    {code}\n{end}")
    file, before = weights(tmp_path), state()
    with pytest.raises(LoadError) if fails else nullcontext():
        hessrank.load_model(file, arch=f"{tmp_path / 'net.py'}:make")
    assert state() == before


CLOSED = {
    "sys.stdout": "sys.stdout.close()",
    "the descriptor": "os.close(1)",
    "another file": "os.dup2(os.open(os.devnull, os.O_WRONLY), 1)",
}


@pytest.mark.parametrize("code", CLOSED.values(), ids=CLOSED)
def test_streams_that_code_closes_are_given_back(code: str) -> None:
    script = (
        "import os, sys\nfrom hessrank.user_code import user_code\nfrom hessrank.errors import LoadError\n"
        f"with user_code('it', LoadError):\n    {code}\nprint('said', flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "said\n"


def test_a_network_s_code_that_changes_the_folder_leaves_outputs_where_the_user_said(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(f"{HEAD}os.chdir('/')\n{NET}")
    arguments = ["--arch", "net.py:make", "--data", "random", "--input-shape", "2", "--out", "r.csv"]
    assert main([str(weights(tmp_path)), *arguments]) == 0
    assert (tmp_path / "r.csv").is_file()


def test_samples_that_raise_are_said_to() -> None:
    class Broken:
        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> torch.Tensor:
            raise KeyError("gone")

    with pytest.raises(DataError, match=r"reading samples \[0\] raised KeyError: 'gone'"):
        hessrank.rank(nn.Linear(2, 2), Broken())


@pytest.mark.parametrize(
    "part", [{"strategy": "{}:f"}, {"distill": "{}:f"}, {"method": "{}:f"}, {"observer": "{}:f"}], ids=str
)
def test_code_of_a_policy_that_raises_is_said_to(part: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("import sys\ndef f(*args, **kwargs):\n    sys.exit('enough')\n")
    named = {key: value.format(tmp_path / "own.py") for key, value in part.items()}
    model, x = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)), torch.randn(4, 2)
    ranking = hessrank.rank(model, x)
    with pytest.raises(HessrankError, match=r"own\.py.*enough") as caught:
        hessrank.prepare(model, hessrank.make_policy(ranking, **named), x)
    assert "\n" not in str(caught.value)
