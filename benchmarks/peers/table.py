"""From what the runs measured to the rows of the table: pure functions of numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from benchmarks.common import Row
from benchmarks.estimators import ERROR, shrinkage
from benchmarks.peers.adapter import Estimates, Peer

Found = Mapping[str, Any]
"""What :mod:`benchmarks.peers.one` wrote of one peer on one network."""
Exact = Mapping[str, float]

REFERENCE = "hessrank"
_EMPTY = ""
COLUMNS = (
    "network, peer, traces of, estimates, tensors, s a probe, mean / exact, rel. sd, s to 10 %, passes to 10 %, "
    "/ hessrank, Spearman, after, peak MiB, grown MiB, setup s, error bar"
).split(", ")
SHOWN = (
    "network, peer, traces of, estimates, tensors, s to 10 %, / hessrank, Spearman, after, peak MiB, error bar".split(
        ", "
    )
)
"""The columns of the markdown table; the CSV has all."""


def shown(rows: Sequence[Row]) -> list[Row]:
    """Return the columns of the markdown table, numbers with three digits that count."""
    return [{column: _told(row[column]) for column in SHOWN} for row in rows]


def _told(value: object) -> str:
    return f"{float(f'{value:.3g}'):.7g}" if isinstance(value, float) else str(value)


def relative_deviation(values: Estimates, probes: int, exact: Exact | None) -> float:
    """Return the standard deviation of a probe over the trace, of the median tensor.

    Args:
        values: tensor by tensor, of ``probes`` probes; one with fewer values takes more of the time for each.
        probes: how many.
        exact: the traces; None where a peer estimates something else, and is measured by its own means.
    """
    found = []
    for name, numbers in values.items():
        size = abs(np.mean(numbers) if exact is None else exact.get(name, 0.0))
        if size and len(numbers) > 1:
            deviation = np.std(numbers, ddof=1) / shrinkage(len(numbers)) * math.sqrt(probes / len(numbers))
            found.append(float(deviation / size))
    return float(np.median(found)) if found else math.nan


def ratio_of_means(values: Estimates, exact: Exact) -> float:
    """Return what a peer found on average over the exact trace, of the median tensor: 1 where it means the same."""
    return float(np.median([np.mean(numbers) / exact[name] for name, numbers in values.items() if exact.get(name)]))


def probes_needed(deviation: float, error: float = ERROR) -> int:
    """Return how many probes bring the median tensor's relative standard error down to ``error``: one at least."""
    return max(1, math.ceil((deviation / error) ** 2))


def agreement(values: Estimates, probes: int, taken: int, exact: Exact) -> float:
    """Return Spearman's correlation of the mean of ``taken`` probes with the exact traces.

    Args:
        values: of ``probes`` probes, as :func:`relative_deviation` takes them.
        probes: how many.
        taken: how many are averaged; if there are more, the correlation is the mean over groups of as many.
        exact: the traces.
    """
    names = [name for name in values if name in exact]
    groups = max(1, probes // taken)
    truth = [exact[name] for name in names]
    columns = [_group_means(values[name], groups) for name in names]
    return float(np.mean([spearmanr(means, truth).statistic for means in zip(*columns, strict=True)]))


def _group_means(numbers: Sequence[float], groups: int) -> list[float]:
    """Return the means of ``groups`` segments of equal length; of what there is, where there are too few."""
    length = max(1, len(numbers) // groups)
    starts = [min(i * length, len(numbers) - length) for i in range(groups)]
    return [float(np.mean(numbers[start : start + length])) for start in starts]


def seconds_to_error(found: Found, deviation: float) -> float:
    """Return the seconds that a peer takes until the median tensor has a relative standard error of 10 %."""
    needed = 1 if math.isnan(deviation) else probes_needed(deviation)
    return float(found["start"] + needed * found["probe"])


def rows_of(network: str, measured: Sequence[tuple[Peer, Found]], exact: Mapping[str, Exact]) -> list[Row]:
    """Return the rows of one network.

    Args:
        network: its name.
        measured: peers with what was found; hessrank, for each kind of tensor, before those it is compared with. If
            it failed, they are not compared, and their Spearman is that of one probe.
        exact: the traces by kind of tensor.
    """
    rows: list[Row] = []
    given: dict[str, float] = {}  # what hessrank takes to 10 %, by kind of tensor, in plain passes
    for peer, found in measured:
        if "failed" in found:
            rows.append(without_numbers(network, peer, str(found["failed"])))
            continue
        truth = exact[peer.tensors]
        own_quantity = peer.gauss_newton and bool(exact.get("full"))
        deviation = relative_deviation(found["values"], found["probes"], None if own_quantity else truth)
        needed = seconds_to_error(found, deviation) / found["plain"]
        if peer.name == REFERENCE:
            given[peer.tensors] = needed
        rows.append(_row(network, peer, found, truth, deviation, needed, given.get(peer.tensors, math.nan)))
    return rows


def _row(
    network: str, peer: Peer, found: Found, exact: Exact, deviation: float, needed: float, reference: float
) -> Row:
    plain = found["plain"]
    start, probe = found["start"] / plain, found["probe"] / plain
    within = 0 if math.isnan(reference) else math.floor((reference - start) / probe + 1e-6)
    taken = max(1, min(found["probes"], within))
    spent = start + taken * probe
    told = "1 sweep" if peer.deterministic else f"{taken} probe{'s'[: taken > 1]}"
    values = {
        "network": network,
        "peer": peer.title,
        "traces of": peer.tensors,
        "estimates": peer.estimates,
        "tensors": len(found["values"]),
        "s a probe": found["probe"],
        "mean / exact": ratio_of_means(found["values"], exact),
        "rel. sd": _EMPTY if math.isnan(deviation) else deviation,
        "s to 10 %": needed * plain,
        "passes to 10 %": needed,
        "/ hessrank": _EMPTY if math.isnan(reference) else needed / reference,
        "Spearman": agreement(found["values"], found["probes"], taken, exact),
        "after": told + (f", {_told(spent / reference)} × the time" if spent > 1.05 * reference else ""),
        "peak MiB": round(found["peak_mib"]),
        "grown MiB": round(found["grown_mib"]),
        "setup s": found["setup"],
        "error bar": peer.error_bar,
    }
    return {column: values[column] for column in COLUMNS}


def without_numbers(network: str, peer: Peer, why: str) -> Row:
    """Return the row of a peer that did not run, and why."""
    row: dict[str, Any] = dict.fromkeys(COLUMNS, _EMPTY)
    return {**row, "network": network, "peer": peer.title, "traces of": peer.tensors, "estimates": why}
