"""One peer on one network, in a process of its own: ``python -m benchmarks.peers.one`` writes its figures as JSON."""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import logging
import statistics
import time
import warnings
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import seconds
from benchmarks.memory import peak, resident
from benchmarks.peers.adapter import Peer, measure
from benchmarks.peers.cases import CASES, QUICK, Case
from benchmarks.peers.exact import traces
from benchmarks.peers.registry import PEERS

EXACT = "exact"
_PASSES = 9


def run(peer: Peer, case_name: str, budget: float) -> dict[str, Any]:
    """Measure a peer, its memory, and how fast the machine is meanwhile."""
    case = {**CASES, **QUICK}[case_name]()
    plain = [_plain_pass(case)]
    highest = peak()
    before = resident()
    found = measure(peer, case, budget)
    top = peak()
    plain.append(_plain_pass(case))
    return {
        **dataclasses.asdict(found),
        "plain": statistics.mean(plain),
        "grown_mib": (top - before) / 2**20,
        "peak_mib": max(highest, top) / 2**20,
    }


def _plain_pass(case: Case) -> float:
    """Return the seconds of a forward and backward pass as training does it: what this machine is worth right now."""
    model = copy.deepcopy(case.model).requires_grad_(True)

    def step() -> None:
        case.criterion(model(case.x), case.target).backward()

    return statistics.median(seconds(step) for _ in range(_PASSES))


def main() -> None:
    """Measure, and write the result or why there is none."""
    made = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    made.add_argument("peer", help=f"'{EXACT}' or one of: " + "; ".join(peer.key for peer in PEERS))
    made.add_argument("case", choices=[*CASES, *QUICK])
    made.add_argument("out", type=Path)
    made.add_argument("--budget", type=float, default=10.0, help="CPU seconds for its probes, about")
    options = made.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    if options.peer == EXACT:
        case = {**CASES, **QUICK}[options.case]()
        result: dict[str, Any] = {"name": case.name, "full": case.full_hessian, **traces(case)}
    else:
        peer = next(peer for peer in PEERS if peer.key == options.peer)
        try:
            result = run(peer, options.case, options.budget)
        except Exception as error:  # whatever a peer raises belongs in its row
            lines = str(error).strip().splitlines()
            result = {"failed": f"{type(error).__name__}: {lines[0] if lines else ''}"}
    result["cpu_seconds"] = time.process_time()
    options.out.write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main()
