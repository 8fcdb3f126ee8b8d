"""Runs a study: every experiment with every seed, each in a folder of its own, what is finished only read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from hessrank.analysis.options import DEFAULT_BITS
from hessrank.analysis.rank import rank
from hessrank.analysis.result.ranking import Ranking
from hessrank.distill.run_file import RunFile
from hessrank.distill.study.file import Experiment, Study, slug
from hessrank.distill.study.finished import read_result, read_start
from hessrank.distill.study.policies import Policies
from hessrank.distill.tasks.find import find_task
from hessrank.distill.training.callbacks.progress import Report
from hessrank.distill.training.from_run_file import start, task_of
from hessrank.distill.training.inputs.devices import cpu_threads
from hessrank.distill.training.inputs.loaders import seeded
from hessrank.distill.training.load_networks import load_float_network
from hessrank.distill.training.outputs.file_names import RESULT
from hessrank.distill.training.outputs.identity import changed, identity_of_run
from hessrank.distill.training.outputs.run_folder import writing_folder
from hessrank.errors import HessrankError, OutputError, unknown_name
from hessrank.files.atomic_write import written_whole
from hessrank.quant.bit_choice.allocation.policy_cost import PolicyCost
from hessrank.quant.policy import Policy
from hessrank.terminal import say

RANKING, RUNS = "ranking.csv", "runs"
Say = Callable[[str], None]


@dataclass(frozen=True)
class StudyTraining:
    """One training of a study.

    Attributes:
        experiment: its experiment's name.
        seed: its seed.
        policy: name of its policy in the study; empty without one.
        run: what to run.
        folder: where.
        costs: of its policy; None in float.
    """

    experiment: str
    seed: int
    policy: str
    run: RunFile
    folder: Path
    costs: PolicyCost | None


def run_study(
    study: Study,
    *,
    only: Collection[str] = (),
    say: Say = say,
    report: Report | None = None,
    trust_pickle: bool = False,
) -> pd.DataFrame:
    """Run what is not finished, and return one row a training.

    Args:
        study: the file.
        only: experiments to run; all if empty. The rows hold whatever is finished.
        say: is told what begins.
        report: is told how far a training is.
        trust_pickle: whether the files that it loads may run code; a file's own ``trust_pickle`` is not enough.

    Returns:
        ``experiment, seed, policy, bops, size_mib, best_epoch``, and for each metric ``before_…``, ``last_…`` and
        ``best_…``: before the first step, after the last epoch, after the best one.

    Raises:
        UnknownNameError: ``only`` names no experiment.
        OutputError: files that no study made would be written over.
        HessrankError: whatever stops a training.
    """
    study = study.trusting(trust_pickle)
    names = [experiment.name for experiment in study.experiments]
    for name in only:
        if name not in names:
            raise unknown_name("experiment", name, names)
    with writing_folder(study.out):
        plan = plan_trainings(study, Policies(study, ranking_of(study, say)))
        wanted = [one for one in plan if not only or one.experiment in only]
        for number, one in enumerate(wanted, 1):
            with writing_folder(one.folder):  # puts in order what a killed process left, also after its last file
                is_over = is_finished(one)
            if is_over:
                continue
            say(f"{number} of {len(wanted)}: {one.experiment}, seed {one.seed}")
            start(
                one.run,
                resume=True,
                say=lambda line: None,
                report=report,
                out=one.folder,
                trust_pickle=trust_pickle,
            )
    monitor = monitor_of(study)
    return pd.DataFrame([_row(one, monitor) for one in plan if is_finished(one)])


def ranking_of(study: Study, say: Say) -> Ranking:
    """Return the study's ranking: read from its file, or made of its float network."""
    if study.keys.ranking is not None:
        try:
            return Ranking.read(study.path.parent / Path(study.keys.ranking).expanduser())
        except HessrankError as error:
            raise study.places.error(f"ranking: {error}", study.places.value("ranking")) from error
    path, wanted = study.out / RANKING, _describe_ranking(study)
    made = Ranking.read(path) if path.exists() else None
    if made is not None and "study" not in made.info:
        raise OutputError(
            f"{path}: is a ranking that no study made, and would be written over: name it (ranking: …), or write "
            "elsewhere (out)"
        )
    if made is None or made.info.get("study") != wanted:
        say(f"ranks the float network on {study.keys.ranking_samples} training samples")
        run = study.experiments[0].run
        with seeded(study.keys.seeds[0]), cpu_threads(run.keys.threads):
            task = task_of(run)
            model = load_float_network(run, task).model
            count = study.keys.ranking_samples
            made = rank(model, task.training_data(), num_samples=count, bits=wanted["bits"])
        made.info["study"] = wanted
        made.to_csv(path)
    return Ranking.read(path)


def _describe_ranking(study: Study) -> dict[str, Any]:
    """Return what the ranking is of, and the bit-widths that it has to predict for."""
    found = identity_of_run(study.experiments[0].run)
    of = ["load_model", "load_model, content", "task", "task_args", "data", "arch", "arch_args"]
    of += ["weights_key"] if found.get("weights_key") else []
    asked = [
        bits
        for keys in study.keys.policies.values()
        for bits in (keys.get("base_bits"), keys.get("high_bits"), *(keys.get("bits") or ()))
    ]
    widths = {int(bits) for bits in asked if isinstance(bits, int)}
    ranked = {name: found.get(name) for name in of}
    return {**ranked, "samples": study.keys.ranking_samples, "bits": sorted({*DEFAULT_BITS, *widths})}


def monitor_of(study: Study) -> str:
    """Return the metric that the study's task goes by."""
    run = study.experiments[0].run
    return find_task(run.reference(run.keys.task)).monitor


def plan_trainings(study: Study, policies: Policies) -> list[StudyTraining]:
    """Return all trainings of a study, in order."""
    return [one for experiment in study.experiments for one in _plan_experiment(study, policies, experiment)]


def _plan_experiment(study: Study, policies: Policies, experiment: Experiment) -> Iterator[StudyTraining]:
    """Yield an experiment's trainings, one a seed."""
    run, own = experiment.run, experiment.own
    policy = run.policy
    if own.policy is not None:
        given = {name: getattr(policy, name) for name in Policy.model_fields if name in run.given}
        policy = policies[own.policy].model_copy(update=given).with_plugins_of(policy)
    policy = policies.with_hints(policy, own)
    costs = policies.costs(policy) if run.keys.quant else None
    for seed in study.keys.seeds:
        seeded_run = replace(run, keys=run.keys.model_copy(update={"seed": seed}), policy=policy)
        folder = study.out / RUNS / slug(experiment.name) / f"seed-{seed}"
        yield StudyTraining(experiment.name, seed, own.policy or "", seeded_run, folder, costs)


def is_finished(one: StudyTraining) -> bool:
    """Return whether a training is over, and was the one that is planned."""
    if not (one.folder / RESULT).exists():
        return False
    begun = read_start(one.folder)
    policy = None if one.run.student_policy is None else str(one.run.student_policy)
    settings = one.run.settings.model_dump(mode="json")
    same = begun.policy == policy and begun.settings == settings
    return same and not changed(identity_of_run(one.run), begun.identity)


def _row(one: StudyTraining, monitor: str) -> dict[str, Any]:
    result, costs = read_result(one.folder), one.costs
    row: dict[str, Any] = {"experiment": one.experiment, "seed": one.seed, "policy": one.policy}
    row |= {"monitor": monitor}
    row |= {"bops": costs and costs.bops, "size_mib": costs and costs.size_mib, "best_epoch": result.best_epoch}
    for when, found in (("before", result.student), ("last", result.last), ("best", result.best)):
        row |= {f"{when}_{name}": value for name, value in found.items()}
    return row


def write_rows(rows: pd.DataFrame, path: Path) -> None:
    """Write one row a training as CSV, whole or not at all."""
    with written_whole(path) as beside:
        rows.to_csv(beside, index=False)
