"""Kills a command at each of its file operations, or at random moments, and lets it go on.

``python -m tests.safety.kills`` walks all of them, which takes a quarter of an hour; tests walk a part.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from hessrank.cli import main

_CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate", "os.chmod")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_NOT_OURS = "tensorboard"  # its event files hold the time of day

ARCH = """
from torch import nn

def net():
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3))
"""

RUN = """
task: points_task.py:Points
epochs: 2
batch_size: 8
learning_rate: 0.01
extra_qconfig_dict: {w_qscheme: {bit: 4}, a_qscheme: {bit: 4}}
distill_config: [relu, inner.relu_dup1]
distill_coeff: [0.7, 0.3]
"""

STUDY = """
base: {task: points_task.py:Points, epochs: 1, batch_size: 16, pictures: 0}
seeds: [0]
policies: {four: {strategy: uniform, base_bits: 4}}
experiments: {a: {policy: four}, b: {policy: four, learning_rate: 0.001}}
ranking_samples: 2
out: out
"""

TASK = """
import sys
sys.path.insert(0, TESTS)
from hessrank.distill.tasks.given import GivenTask
from helpers.training_networks import network, points


class Points(GivenTask):
    monitor = "loss"
    model = staticmethod(network)

    def __init__(self, data=None, folder=None, seed=0):
        super().__init__(points(), points(20, seed=1), loss="cross-entropy", validation_batch_size=16)
"""


@dataclass(frozen=True)
class Scenario:
    """A command that writes files.

    Attributes:
        prepare: makes its inputs in the current folder.
        begin: runs it in the current folder.
        go_on: runs it again, to the same end.
    """

    prepare: Callable[[], None]
    begin: Callable[[], object]
    go_on: Callable[[], object]


def _prepare_model() -> None:
    Path("nets.py").write_text(ARCH)
    torch.manual_seed(0)
    torch.save(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3)).state_dict(), "model.pth")
    np.save("x.npy", torch.randn(2, 1, 8, 8).numpy())


def _prepare_ranking() -> None:
    _prepare_model()
    _run(*RANK)


def _run(*arguments: str) -> None:
    sys.argv = ["hessrank", *(a for a in arguments if a != "--resume")]
    assert main(arguments) == 0, arguments


_MODEL = ("model.pth", "--arch", "nets.py:net", "--data", "x.npy")
RANK = (*_MODEL, "--max-probes", "4", "--increase-probes", "4", "--out", "r.csv", "--plot", "r.png")
_POLICY = ("policy", "r.csv", "--out", "p.yaml", "--pareto", "f.csv", "--plot", "f.png", "--bit-map", "b.png")
TRAIN = ("train", "run.yaml")
_EXPORT = ("export", *_MODEL, "--policy", "p.yaml", "--out", "m.onnx", "--scales", "s.json")


def _prepare_policy() -> None:
    _prepare_ranking()
    _run(*_POLICY)


def _prepare_training() -> None:
    Path("points_task.py").write_text(TASK.replace("TESTS", repr(str(Path(__file__).parents[1]))))
    Path("run.yaml").write_text(RUN)
    Path("study.yaml").write_text(STUDY)


SCENARIOS = {
    "rank": Scenario(_prepare_model, lambda: _run(*RANK), lambda: _run(*RANK, "--resume")),
    "policy": Scenario(_prepare_ranking, lambda: _run(*_POLICY), lambda: _run(*_POLICY)),
    "export": Scenario(_prepare_policy, lambda: _run(*_EXPORT), lambda: _run(*_EXPORT)),
    "train": Scenario(_prepare_training, lambda: _run(*TRAIN), lambda: _run(*TRAIN, "--resume")),
    "study": Scenario(_prepare_training, lambda: _run("study", "study.yaml"), lambda: _run("study", "study.yaml")),
}


def content(folder: Path) -> dict[str, bytes]:
    """Return all files of a folder by name, less those that are never the same."""
    paths = [path for path in folder.rglob("*") if path.is_file() or path.is_symlink()]
    names = [str(path.relative_to(folder)) for path in paths]
    return {n: p.read_bytes() for n, p in zip(names, paths, strict=True) if _NOT_OURS not in n and "__pyc" not in n}


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[None]:
    """Be in a folder, quietly, until the block is left."""
    with contextlib.chdir(folder), Path(os.devnull).open("w") as nothing:
        with contextlib.redirect_stdout(nothing), contextlib.redirect_stderr(nothing):
            yield


def in_child(work: Callable[[], object], *, at: int | None = None, after: float | None = None) -> tuple[int, int]:
    """Run ``work`` in a process of its own; return its exit status, and how many file operations it began.

    Args:
        work: what to run.
        at: kill it right before the operation of this number, from 1.
        after: kill it after so many seconds.
    """
    read, write = os.pipe()
    here = str(Path.cwd())
    child = os.fork()
    if child == 0:
        os.close(read)
        count = 0

        def watch(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal count
            if not _is_change(event, arguments, here):
                return
            count += 1
            os.write(write, b".")
            if count == at:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)
        try:
            work()
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
            os._exit(1)
        os._exit(0)
    os.close(write)
    if after is not None:
        time.sleep(after)
        os.kill(child, signal.SIGKILL)
    with os.fdopen(read, "rb") as file:
        count = len(file.read())
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), count


def _is_change(event: str, arguments: tuple[object, ...], here: str) -> bool:
    """Return whether an audit event changes a file in the folder ``here``."""
    if event == "open":
        path, _, flags = arguments
        changes = isinstance(flags, int) and bool(flags & _WRITES)
    else:
        path, changes = (arguments[0] if arguments else None), event in _CHANGES
    if not changes or not isinstance(path, str | bytes | os.PathLike):
        return changes and isinstance(path, int) and event == "os.truncate"
    name = os.path.abspath(os.fsdecode(path))
    return name.startswith(here) and _NOT_OURS not in name and "__pycache__" not in name


def prepared(name: str, folder: Path) -> Path:
    """Make the folder that a scenario begins in."""
    folder.mkdir(parents=True)
    with inside(folder):
        SCENARIOS[name].prepare()
    return folder


def whole(name: str, begin: Path, folder: Path) -> tuple[dict[str, bytes], int]:
    """Run a scenario without a break; return its files and its number of file operations.

    Args:
        name: of the scenario.
        begin: what it begins with, which is copied.
        folder: where to run it.
    """
    shutil.copytree(begin, folder)
    with inside(folder):
        status, count = in_child(SCENARIOS[name].begin)
    assert status == 0, name
    return content(folder), count


def killed_then_resumed(name: str, begin: Path, folder: Path, **kill: float) -> tuple[int, dict[str, bytes]]:
    """Run a scenario, kill it, let it go on; return the status of the killed process and the files at the end."""
    shutil.copytree(begin, folder)
    with inside(folder):
        status, _ = in_child(SCENARIOS[name].begin, **kill)  # type: ignore[arg-type]
        again, _ = in_child(SCENARIOS[name].go_on)
    assert again == 0, f"{name}, killed {kill}: cannot go on"
    return status, content(folder)


def _walk(name: str, scratch: Path, moments: int) -> int:
    """Kill a scenario at every file operation and at random moments; print what is not as it should be."""
    begin = prepared(name, scratch / name / "begin")
    begun = time.monotonic()
    expected, count = whole(name, begin, scratch / name / "whole")
    seconds = time.monotonic() - begun
    draws = random.Random(0)
    kills: list[dict[str, float]] = [{"at": at} for at in range(1, count + 1)]
    kills += [{"after": draws.uniform(0, seconds)} for _ in range(moments)]
    bad = 0
    for number, kill in enumerate(kills):
        try:
            _, found = killed_then_resumed(name, begin, scratch / name / str(number), **kill)
        except AssertionError as error:
            print(error)
            bad += 1
            continue
        different = sorted(n for n in {**expected, **found} if expected.get(n) != found.get(n))
        if different:
            print(f"{name}, killed {kill}: not the same: {', '.join(different)}")
            bad += 1
    print(f"{name}: {count} file operations and {moments} moments, {bad} with other bytes or strays")
    return bad


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenarios", nargs="*", default=list(SCENARIOS))
    parser.add_argument("--moments", type=int, default=20, help="random moments a scenario")
    arguments = parser.parse_args()
    os.environ.setdefault("HESSRANK_SAVE_SECONDS", "0")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        sys.exit(min(1, sum(_walk(name, Path(scratch), arguments.moments) for name in arguments.scenarios)))
