"""Commands in processes of their own, interrupted as Ctrl-C does it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path


def interrupted(
    arguments: list[str],
    folder: Path,
    *,
    sign: str,
    by: signal.Signals = signal.SIGINT,
    after: float = 0.5,
    **environment: str,
) -> tuple[int, str]:
    """Run ``hessrank`` until it prints a line with ``sign``, end it, and return exit code and stderr.

    Args:
        arguments: of the command.
        folder: where to run it.
        sign: part of a line on stderr that says that it is in the middle of its work.
        by: the signal to send.
        after: seconds between the line and the signal.
        environment: more variables.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "hessrank", *arguments],
        cwd=folder,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HESSRANK_PROGRESS_SECONDS": "0", **environment},
        preexec_fn=_heeds_ctrl_c,  # noqa: PLW1509 - there are no threads here
    )
    assert process.stderr is not None
    while sign not in process.stderr.readline():
        assert process.poll() is None
    time.sleep(after)
    process.send_signal(by)
    _, said = process.communicate(timeout=60)
    return process.returncode, said


def in_two_processes(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run ``hessrank`` under torchrun."""
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "hessrank",
    ]
    return subprocess.run(
        [*launch, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HESSRANK_PROGRESS_SECONDS": "0"},
    )


def _heeds_ctrl_c() -> None:
    """Undo what a shell does to its jobs in the background: they ignore SIGINT, and their children do."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
