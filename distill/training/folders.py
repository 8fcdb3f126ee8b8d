"""The folder of a run: a new one, or one whose training goes on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from hessrank.distill.training.checkpoints import newest
from hessrank.distill.training.identity import changed
from hessrank.distill.training.main_process import is_main_process
from hessrank.distill.training.result import RESULT
from hessrank.distill.training.trained import read_trained
from hessrank.errors import OptionError, OutputError

RUNS = Path("runs")
_FOLDER = "HESSRANK_RUN_FOLDER"  # in the environment of the processes that help
_FREE = ("epochs", "workers", "devices", "num_nodes", "data_timeout", "detailed_epochs", "log_every", "pictures",
         "threads")  # fmt: skip
"""Settings that a run may go on with changed: none of them changes what an epoch computes (with a constant rate)."""


def shared_folder(name: str) -> Path:
    """Return a folder in ``runs`` that is not there yet: ``runs/name``, else ``runs/name-2`` and so on.

    The processes that this one starts to help it take the same one.

    Raises:
        OptionError: this is such a process, but of a launcher that started them all at once.
    """
    if not is_main_process():
        if _FOLDER not in os.environ:
            raise OptionError("several processes were started at once: give all of them the folder to write to (out)")
        return Path(os.environ[_FOLDER])
    candidates = (RUNS / (name if number == 1 else f"{name}-{number}") for number in count(1))
    folder = next(folder for folder in candidates if not folder.exists())
    os.environ[_FOLDER] = str(folder)
    return folder


@dataclass(frozen=True)
class Resumed:
    """Where a run goes on.

    Attributes:
        path: the checkpoint.
        step: steps that are behind it.
        epoch: epochs likewise.
    """

    path: Path
    step: int
    epoch: int


def open_folder(folder: Path, facts: Mapping[str, Any], *, resume: bool, judge_only: bool = False) -> Resumed | None:
    """Make the folder; return where to go on from, None to start.

    Args:
        folder: of the run.
        facts: of the training that is to run, to be compared with the checkpoint's.
        resume: whether to go on from what is there.
        judge_only: nothing is to be trained, so that what is there does no harm.

    Raises:
        OptionError: it holds a run, but that is not to go on, or it was another training.
        OutputError: the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: the folder cannot be made: {error.strerror}") from error
    last = newest(folder)
    if last is None or (judge_only and not resume):
        return None
    if not resume:
        raise OptionError(
            f"{folder}: a run is here already ({last.name}): go on with resume (--resume), or write elsewhere (out)"
        )
    checkpoint, held = read_trained(last)
    if held["epoch"] > facts["settings"]["epochs"]:
        raise OptionError(
            f"{folder}: {held['epoch']} epochs are trained already, epochs is {facts['settings']['epochs']}"
        )
    different = changed(facts["identity"], held["identity"])
    different += ["policy"] if held["policy"] != facts["policy"] else []
    theirs, ours = held["settings"], facts["settings"]
    free = _FREE if ours["schedule"] == "constant" else tuple(name for name in _FREE if name != "epochs")
    different += [name for name in ours if name not in free and ours[name] != theirs.get(name)]
    if different:
        told = ", ".join(
            f"{name} ({theirs.get(name)} → {ours[name]})" if name in ours else name for name in different
        )
        raise OptionError(
            f"{folder}: this run was started with something else: {told}; write elsewhere, or remove the folder"
        )
    (folder / RESULT).unlink(missing_ok=True)  # it says that the run is over
    return Resumed(last, int(checkpoint["global_step"]), int(held["epoch"]))
