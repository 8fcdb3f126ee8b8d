"""Runs a study: every experiment with every seed, each in a folder of its own, what is finished only read."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from hessrank.analysis.rank import rank
from hessrank.analysis.ranking import Ranking
from hessrank.distill.run_file import RunFile
from hessrank.distill.study.file import Experiment, Study
from hessrank.distill.study.policies import Policies
from hessrank.distill.training.before import START
from hessrank.distill.training.devices import cpu_threads
from hessrank.distill.training.loaders import seeded
from hessrank.distill.training.progress import Report
from hessrank.distill.training.result import RESULT
from hessrank.distill.training.start import float_network, start, task_of
from hessrank.errors import unknown_name
from hessrank.files import written_whole
from hessrank.quant.policy import Policy

RANKING, RUNS = "ranking.csv", "runs"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Planned:
    """One training of a study.

    Attributes:
        experiment: its experiment's name.
        seed: its seed.
        run: what to run.
        folder: where.
        bops: of one sample, by its policy; None in float.
        size_mib: of all parameters, likewise.
    """

    experiment: str
    seed: int
    run: RunFile
    folder: Path
    bops: float | None
    size_mib: float | None


def run_study(
    study: Study, *, only: Collection[str] = (), say: Say = print, report: Report | None = None
) -> pd.DataFrame:
    """Run what is not finished, and return one row a training.

    Args:
        study: the file.
        only: experiments to run; all if empty. The rows hold whatever is finished.
        say: is told what begins.
        report: is told how far a training is.

    Returns:
        ``experiment, seed, policy, bops, size_mib, best_epoch``, and for each metric ``before_…``, ``last_…`` and
        ``best_…``: before the first step, after the last epoch, after the best one.

    Raises:
        UnknownNameError: ``only`` names no experiment.
        HessrankError: whatever stops a training.
    """
    names = [experiment.name for experiment in study.experiments]
    for name in only:
        if name not in names:
            raise unknown_name("experiment", name, names)
    study.out.mkdir(parents=True, exist_ok=True)
    plan = planned(study, Policies(study, ranking_of(study, say)))
    wanted = [one for one in plan if not only or one.experiment in only]
    for number, one in enumerate(wanted, 1):
        if finished(one):
            continue
        say(f"{number} of {len(wanted)}: {one.experiment}, seed {one.seed}")
        start(one.run, resume=True, say=lambda line: None, report=report, out=one.folder)
    return pd.DataFrame([_row(study, one) for one in plan if finished(one)])


def ranking_of(study: Study, say: Say) -> Ranking:
    """Return the study's ranking: the file's, or of its float network on training samples."""
    if study.keys.ranking is not None:
        return Ranking.read(study.path.parent / Path(study.keys.ranking).expanduser())
    path = study.out / RANKING
    if not path.exists():
        say(f"ranks the float network on {study.keys.ranking_samples} training samples")
        run = study.experiments[0].run
        with seeded(study.keys.seeds[0]), cpu_threads(run.keys.threads):
            task = task_of(run)
            model = float_network(run, task).model
            rank(model, task.training_data(), num_samples=study.keys.ranking_samples).to_csv(path)
    return Ranking.read(path)


def planned(study: Study, policies: Policies) -> list[Planned]:
    """Return all trainings of a study, in order."""
    return [_planned(study, policies, one, seed) for one in study.experiments for seed in study.keys.seeds]


def _planned(study: Study, policies: Policies, experiment: Experiment, seed: int) -> Planned:
    run, own = experiment.run, experiment.own
    policy = run.policy
    if own.policy is not None:
        given = {name: getattr(policy, name) for name in Policy.model_fields if name in run.given}
        policy = policies[own.policy].model_copy(update=given)
    policy = policies.with_hints(policy, own)
    keys = run.keys.model_copy(update={"seed": seed})
    folder = study.out / RUNS / slug(experiment.name) / f"seed-{seed}"
    bops, size = (policies.bops(policy), policies.size_mib(policy)) if keys.quant else (None, None)
    return Planned(experiment.name, seed, replace(run, keys=keys, policy=policy), folder, bops, size)


def slug(name: str) -> str:
    """Return a name as one that a folder can have."""
    return re.sub(r"[^\w.,=+-]+", "-", name).strip("-") or "experiment"


def finished(one: Planned) -> bool:
    """Return whether a training is over, and was the one that is planned."""
    if not (one.folder / RESULT).exists():
        return False
    told = _read(one.folder / START)
    return bool(told["policy"] == (str(one.run.policy) if one.run.keys.quant else None)) and all(
        told["settings"][name] == value
        for name, value in one.run.keys.model_dump(mode="json").items()
        if name in told["settings"]
    )


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _row(study: Study, one: Planned) -> dict[str, Any]:
    result = _read(one.folder / RESULT)
    own = {experiment.name: experiment.own for experiment in study.experiments}[one.experiment]
    before = result["before"].get("quantized", result["before"]["float"])
    row: dict[str, Any] = {"experiment": one.experiment, "seed": one.seed, "policy": own.policy or ""}
    row |= {"bops": one.bops, "size_mib": one.size_mib, "best_epoch": result["best_epoch"]}
    for when, found in (("before", before), ("last", result["last"]), ("best", result["best"])):
        row |= {f"{when}_{name}": value for name, value in found.items()}
    return row


def write_rows(rows: pd.DataFrame, path: Path) -> None:
    """Write one row a training as CSV, whole or not at all."""
    with written_whole(path) as beside:
        rows.to_csv(beside, index=False)
