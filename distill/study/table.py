"""A study's table: the mean over the seeds, and how far to trust it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

import pandas as pd

from hessrank.text import printable

_MARKUP = re.compile(r"[\\|<`*\[]")  # what markdown would take for its own


def metrics_of(rows: pd.DataFrame) -> list[str]:
    """Return the names of the metrics in a study's rows, the monitored one first."""
    found = [str(column).removeprefix("last_") for column in rows if str(column).startswith("last_")]
    monitored = set(rows["monitor"]) if "monitor" in rows else set()
    return sorted(found, key=lambda name: name not in monitored)


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one row an experiment, in the order in which they come.

    Args:
        rows: one a training, as :func:`hessrank.distill.study.run.run_study` gives them.

    Returns:
        ``experiment, seeds, monitor, bops, size_mib``, and for each metric its mean ``before_…`` and ``last_…`` over
        the seeds and ``sem_…``, the standard error of the last; NaN from one seed.
    """
    found = []
    for name, group in rows.groupby("experiment", sort=False):
        row: dict[str, object] = {"experiment": name, "seeds": len(group)}
        row |= {column: group[column].iloc[0] for column in ("monitor", "bops", "size_mib") if column in rows}
        for metric in metrics_of(rows):
            row[f"before_{metric}"] = group[f"before_{metric}"].mean()
            row[f"last_{metric}"] = group[f"last_{metric}"].mean()
            row[f"sem_{metric}"] = group[f"last_{metric}"].sem() if len(group) > 1 else math.nan
        found.append(row)
    return pd.DataFrame(found)


def markdown(rows: pd.DataFrame) -> str:
    """Return a study as a markdown table: mean ± standard error over the seeds.

    The figures are those after the last epoch.

    The first metric is the monitored one, which decides which epoch is best; the last column names it.
    """
    table, metrics = summary(rows), metrics_of(rows)
    monitored = ["monitored"] if "monitor" in rows else []
    head = ["experiment", "seeds", "GBOPs", "MiB", *(f"{name} before" for name in metrics[:1]), *metrics, *monitored]
    lines = [_line(head), "|---|" + "---:|" * (len(head) - 1)]
    for row in table.to_dict("records"):
        cells = [str(row["experiment"]), str(row["seeds"]), _number(row["bops"], 1e-9), _number(row["size_mib"])]
        cells += [f"{row[f'before_{name}']:.4g}" for name in metrics[:1]]
        cells += [_with_error(row[f"last_{name}"], row[f"sem_{name}"]) for name in metrics]
        cells += [str(row["monitor"]) for _ in monitored]
        lines.append(_line(cells))
    return "\n".join(lines) + "\n"


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(_MARKUP.sub(r"\\\g<0>", printable(cell)) for cell in cells) + " |"


def _number(value: object, factor: float = 1.0) -> str:
    number = float(value) if isinstance(value, int | float) else math.nan
    return "" if math.isnan(number) else f"{number * factor:.3g}"


def _with_error(mean: float, sem: float) -> str:
    """Return mean ± sem, the mean with as many digits as two of its error need."""
    if math.isnan(sem):
        return f"{mean:.4g}"
    digits = 2 if sem == 0 else max(0, 1 - math.floor(math.log10(sem)))
    return f"{mean:.{digits}f} ± {sem:.{digits}f}"
