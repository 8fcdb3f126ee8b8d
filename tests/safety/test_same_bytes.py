"""The same command gives the same bytes, whatever the process's hash seed, time zone and locale."""

import os
import subprocess
import sys
from pathlib import Path

from tests.safety.kills import RANK, TRAIN, content, prepared

ENVIRONMENTS = {
    "as it is": {},
    "another hash seed, in Tokyo": {"PYTHONHASHSEED": "1", "TZ": "Asia/Tokyo", "LC_ALL": "C", "PYTHONUTF8": "0"},
}


def _files(folder: Path, environment: dict[str, str], *arguments: str) -> dict[str, bytes]:
    """Run a command in a process of its own; return the files that are there then."""
    command = [sys.executable, "-m", "hessrank", *arguments]
    run = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return content(folder)


def test_a_ranking_has_the_same_bytes(tmp_path: Path) -> None:
    found = {n: _files(prepared("rank", tmp_path / n), env, *RANK) for n, env in ENVIRONMENTS.items()}
    first = found["as it is"]
    assert {"r.csv", "r.json", "r.png"} <= first.keys()
    assert all(files == first for files in found.values())


def test_a_training_has_the_same_bytes(tmp_path: Path) -> None:
    found = {n: _files(prepared("train", tmp_path / n), env, *TRAIN) for n, env in ENVIRONMENTS.items()}
    first = found["as it is"]
    assert "runs/run/last-epoch0002.ckpt" in first
    assert all(files == first for files in found.values())
