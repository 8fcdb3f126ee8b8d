"""Commands in processes of their own, interrupted as Ctrl-C does it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path


def interrupted(arguments: list[str], folder: Path, *, sign: str) -> tuple[int, str]:
    """Run ``hessrank`` until it prints a line with ``sign``, send it SIGINT, and return exit code and stderr.

    Args:
        arguments: of the command.
        folder: where to run it.
        sign: part of a line on stderr that says that it is in the middle of its work.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "hessrank", *arguments],
        cwd=folder,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HESSRANK_PROGRESS_SECONDS": "0"},
        preexec_fn=_heeds_ctrl_c,  # noqa: PLW1509 - there are no threads here
    )
    assert process.stderr is not None
    while sign not in process.stderr.readline():
        assert process.poll() is None
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    return process.returncode, said


def _heeds_ctrl_c() -> None:
    """Undo what a shell does to its jobs in the background: they ignore SIGINT, and their children do."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
