"""hessrank against what its users would otherwise run: one table, markdown and CSV.

Each peer runs on each network in a process of its own, on one thread, with the interpreter of its own environment
(``--envs FOLDER`` holds FOLDER/<peer>/bin/python), or the one at hand if the package is there; else it is left out,
and its row says so. Times are CPU seconds.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import Row, markdown, parsed, parser, write_csv
from benchmarks.peers.adapter import Peer
from benchmarks.peers.cases import CASES, QUICK
from benchmarks.peers.one import EXACT
from benchmarks.peers.registry import PEERS
from benchmarks.peers.table import REFERENCE, rows_of, shown, without_numbers
from hessrank.errors import unknown_name

ROOT = Path(__file__).resolve().parents[2]
_LONGEST = 1800  # seconds for one run
_TITLE = "hessrank against what users would otherwise run, each by its own code"


def interpreter(peer: Peer, environments: Path | None) -> str | None:
    """Return the Python that has the peer; None if none does."""
    own = environments / peer.name / "bin" / "python" if environments else None
    if peer.package and own is not None and own.exists():
        return str(own)
    return sys.executable if not peer.package or importlib.util.find_spec(peer.package) else None


def how_to_install(peer: Peer) -> str:
    """Return the line that brings a peer into an environment that has hessrank."""
    return f"not installed: pip install --no-deps -r benchmarks/peers_environments/{peer.name}.txt"


def chosen(names: Sequence[str]) -> list[Peer]:
    """Return the peers of these names, all if there are none; hessrank always, which they are compared with.

    Raises:
        UnknownNameError: there is no such peer; the nearest are listed.
    """
    known = {peer.name for peer in PEERS}
    for name in names:
        if name not in known:
            raise unknown_name("peer", name, known)
    return [peer for peer in PEERS if not names or peer.name in {*names, REFERENCE}]


def run(python: str, what: str, case: str, budget: float) -> dict[str, Any]:
    """Measure in a process of its own and return what it wrote, or why it did not."""
    print(f"{case}: {what}", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.json"
        command = [python, "-m", "benchmarks.peers.one", what, case, str(out), "--budget", str(budget)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        try:
            ended = subprocess.run(
                command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=_LONGEST
            )
        except subprocess.TimeoutExpired:
            return {"failed": f"no answer within {_LONGEST} s"}
        if ended.returncode or not out.exists():
            return {"failed": (ended.stderr.strip().splitlines() or [f"ended with {ended.returncode}"])[-1]}
        found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
        return found


def rows(case: str, peers: Sequence[Peer], environments: Path | None, budget: float) -> list[Row]:
    """Measure all peers on one network."""
    exact = run(sys.executable, EXACT, case, budget)
    if "failed" in exact:
        raise SystemExit(f"{case}: no exact traces: {exact['failed']}")
    measured, absent = [], []
    for peer in peers:
        python = interpreter(peer, environments)
        if python is None:
            absent.append(without_numbers(exact["name"], peer, how_to_install(peer)))
        else:
            measured.append((peer, run(python, peer.key, case, budget)))
    return [*rows_of(exact["name"], measured, exact), *absent]


def main() -> None:
    """Measure, print the table, and write it."""
    made = parser(__doc__)
    made.add_argument("--only", nargs="+", default=[], metavar="NAME", help="these peers, and hessrank")
    made.add_argument("--networks", nargs="+", choices=CASES, default=list(CASES), help="these networks")
    made.add_argument("--envs", type=Path, help="a folder with an environment for each peer")
    made.add_argument("--budget", type=float, default=10.0, help="CPU seconds for a peer's probes, about")
    options = parsed(made)
    peers = chosen(options.only)
    cases, budget = (list(QUICK), 0.3) if options.quick else (options.networks, options.budget)
    table = [row for case in cases for row in rows(case, peers, options.envs, budget)]
    text = markdown(_TITLE, shown(table))
    print("\n" + text)
    if options.out:
        options.out.with_suffix(".md").write_text(text + "\n", encoding="utf-8")
        write_csv(table, options.out.with_suffix(".csv"))


if __name__ == "__main__":
    main()
