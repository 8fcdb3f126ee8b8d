"""One command in a process of its own: a fork of one that has imported everything, with bounds."""

from __future__ import annotations

import importlib
import os
import pkgutil
import resource
import signal
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

SECONDS = 20
"""What a case may take of a processor; it may wait three times as long, because others work on the machine too."""
BYTES = 2 * 2**30
"""What a case may take of memory."""
_PROCESSES = 16
_PARENTS = ("hessrank", "hessrank.cli", "hessrank.analysis", "hessrank.quant", "hessrank.distill")
_LIBRARIES = "onnx onnxruntime onnxscript sklearn.datasets safetensors.torch matplotlib.pyplot adjustText".split()
_LIBRARIES += [
    "torch.onnx",
    "torch.export",
    "torch.utils.tensorboard",
    "lightning.pytorch",
    "torchmetrics",
    "transformers",
]


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        status: its exit status, negative the signal that ended it.
        out: what it printed.
        err: what it said on standard error.
        seconds: of a processor.
        grown: bytes above those of the process that it was forked from.
    """

    status: int
    out: str
    err: str
    seconds: float
    grown: int


def warm_up() -> None:
    """Import everything that a command may, so that a fork has it at once."""
    os.environ |= {"MPLBACKEND": "Agg", "COLUMNS": "120", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    for name in _LIBRARIES:
        importlib.import_module(name)
    for parent in _PARENTS:
        package = importlib.import_module(parent)
        for module in pkgutil.walk_packages(package.__path__, f"{parent}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)

    import torch

    torch.set_num_threads(1)


def run(arguments: list[str], folder: Path, streams: Path) -> Ended:
    """Run ``hessrank`` with these arguments in ``folder``.

    Args:
        arguments: of the command line.
        folder: the working directory; its neighbor ``home`` is the home, ``tmp`` that of temporary files.
        streams: a folder for what it prints.
    """
    before = _resident()
    child = os.fork()
    if child == 0:
        os._exit(_work(arguments, folder, streams))
    status, usage = _wait(child)
    out, err = ((streams / name).read_text(errors="replace") for name in ("out", "err"))
    return Ended(status, out, err, usage.ru_utime + usage.ru_stime, max(0, usage.ru_maxrss * 1024 - before))


def _wait(child: int) -> tuple[int, resource.struct_rusage]:
    """Wait for a child; end it, and what it has started, when its time is over."""
    over = time.monotonic() + 3 * SECONDS
    while True:
        gone, status, usage = os.wait4(child, os.WNOHANG)
        if gone or time.monotonic() > over:
            break
        time.sleep(0.005)
    try:
        os.killpg(child, signal.SIGKILL)
    except ProcessLookupError:
        pass
    if not gone:
        _, status, usage = os.wait4(child, 0)
    return os.waitstatus_to_exitcode(status), usage


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _work(arguments: list[str], folder: Path, streams: Path) -> int:
    """Be ``hessrank``: streams, folder, bounds, then its ``main``, and what Python does after it."""
    os.setsid()
    for descriptor, name in enumerate((os.devnull, streams / "out", streams / "err")):
        opened = os.open(name, os.O_RDONLY if descriptor == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(opened, descriptor)
        os.close(opened)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w", buffering=1, errors="backslashreplace")
    os.environ |= {"HOME": str(folder.parent / "home"), "TMPDIR": str(folder.parent / "tmp")}
    os.chdir(folder)
    sys.argv = ["hessrank", *arguments]
    sys.modules["__main__"].__spec__ = importlib.util.find_spec("hessrank.__main__")  # for what starts itself again
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2 * BYTES,) * 2)  # of addresses more is asked for than used
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _bound_processes()
    from hessrank.cli import main

    try:
        status = main(arguments)
        sys.stdout.flush()
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stderr.flush()
    return status & 255


def _bound_processes() -> None:
    """Let no process that went wild fill the machine with its children."""
    started = 0

    def count(event: str, _: object) -> None:
        nonlocal started
        if event in ("os.fork", "subprocess.Popen"):
            started += 1
            if started > _PROCESSES:
                raise BlockingIOError(11, "Resource temporarily unavailable")

    sys.addaudithook(count)
