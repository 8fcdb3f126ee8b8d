"""What every benchmark needs: its options, a clock, a table, and a piece of work for an estimator."""

from __future__ import annotations

import argparse
import csv
import datetime
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hessrank.analysis.estimators import Weight, Work
from hessrank.analysis.estimators.probes import Rademacher
from hessrank.analysis.losses import make_loss
from hessrank.data.batch import Batch
from hessrank.network.layer_facts import SampleAxis
from hessrank.network.network import Network

Row = Mapping[str, Any]
"""One line of a table: column by column, numbers or words."""


def parser(purpose: str | None) -> argparse.ArgumentParser:
    """Return the options that every benchmark has: ``--quick``, ``--threads`` and ``--out``."""
    made = argparse.ArgumentParser(description=(purpose or "").splitlines()[0])
    made.add_argument("--quick", action="store_true", help="small networks, few repeats: does it run at all?")
    made.add_argument("--threads", type=int, default=1, help="torch's threads (default 1)")
    made.add_argument("--out", type=Path, help="write the table as CSV, too")
    return made


def parsed(made: argparse.ArgumentParser) -> argparse.Namespace:
    """Read the command line and set the number of threads."""
    options = made.parse_args()
    torch.set_num_threads(options.threads)
    return options


def machine() -> str:
    """Return processor, cores, torch and its threads in one line."""
    return (
        f"{_processor()}, {os.cpu_count()} cores, torch {torch.__version__}, "
        f"{torch.get_num_threads()} thread{'s'[: torch.get_num_threads() > 1]}"
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def report(title: str, rows: Sequence[Row], out: Path | None = None) -> None:
    """Print a markdown table under its title, with the machine and the date; write it to ``out``, too."""
    print("\n" + markdown(title, rows))
    if out is not None:
        write_csv(rows, out)


def markdown(title: str, rows: Sequence[Row]) -> str:
    """Return a table under its title, with the machine and the date."""
    columns = list(rows[0])
    cells = [[_cell(row[column]) for column in columns] for row in rows]
    widths = [max(len(line[i]) for line in [columns, *cells]) for i in range(len(columns))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in [columns, ["-" * width for width in widths], *cells]
    ]
    return "\n".join([title, f"({machine()}; {datetime.date.today().isoformat()})", "", *lines])


def write_csv(rows: Sequence[Row], out: Path) -> None:
    """Write a table as CSV."""
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def seconds(work: Callable[[], object]) -> float:
    """Return the CPU seconds that ``work`` takes: on one thread, those of the clock on an idle machine."""
    start = time.process_time()
    work()
    return time.process_time() - start


def interleaved(tasks: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Let the tasks take turns (A, B, A, B, …) and return the seconds that each said it took.

    Args:
        tasks: each does its work once and returns the seconds of what is measured of it.
        repeats: how many turns count; one more comes first, to warm up.
    """
    taken: dict[str, list[float]] = {name: [] for name in tasks}
    for turn in range(repeats + 1):
        for name, task in tasks.items():
            found = task()
            if turn:
                taken[name].append(found)
    return taken


def work_for(network: Network, batch: Batch, probes: range, *, seed: int = 0, weights: Sequence[Weight] = ()) -> Work:
    """Return the work of some probes on one batch, for all layers, with the `self` loss."""
    names = [layer.name for layer in network.layers]
    axes = dict.fromkeys(names, SampleAxis())
    return Work(network, make_loss("self"), batch, Rademacher(seed), probes, names, weights, axes)


def batch_of(x: Tensor, first: int = 0) -> Batch:
    """Return ``x`` (samples first) as a batch whose samples are numbered from ``first``."""
    return Batch((x,), samples=tuple(range(first, first + len(x))))
