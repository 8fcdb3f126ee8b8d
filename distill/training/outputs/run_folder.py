"""The folder of a run: a new one, or one whose training goes on; nothing of anybody else's in it is touched."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from hessrank.distill.training.outputs.checkpoint_files import find_checkpoints, find_newest
from hessrank.distill.training.outputs.file_names import (
    CURVES,
    METRICS,
    RESULT,
    START,
    STEPS,
    TEST,
    page_name,
    picture_name,
)
from hessrank.distill.training.outputs.identity import changed
from hessrank.distill.training.outputs.load_trained import read_trained
from hessrank.errors import OptionError, OutputError
from hessrank.files.one_writer import one_writer
from hessrank.main_process import is_main_process

RUNS = Path("runs")
_FOLDER = "HESSRANK_RUN_FOLDER"  # in the environment of the processes that help
_FREE = ("epochs", "workers", "devices", "num_nodes", "data_timeout", "detailed_epochs", "log_every", "pictures",
         "threads")  # fmt: skip
"""Settings that a run may go on with changed: none of them changes what an epoch computes (with a constant rate)."""


def shared_folder(name: str) -> Path:
    """Return a new folder in ``runs``: ``runs/name``, else ``runs/name-2``, ….

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


@contextmanager
def writing_folder(folder: Path) -> Iterator[None]:
    """Make a folder and be its one writer until the block is left.

    Folders that stay empty are removed again.

    Processes that only help make nothing.

    Raises:
        OutputError: the folder cannot be made, or another process writes to it.
    """
    if not is_main_process():
        yield
        return
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: the folder cannot be made: {error.strerror}") from error
    try:
        with one_writer(folder):
            yield
    finally:
        with contextlib.suppress(OSError):  # something was written
            for path in made:
                path.rmdir()


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
    """Return where to go on from in a folder that is there; None to start.

    Args:
        folder: of the run.
        facts: of the training that is to run, to be compared with the checkpoint's.
        resume: whether to go on from what is there.
        judge_only: nothing is to be trained, so that what is there does no harm.

    Raises:
        OptionError: it holds a run, but that is not to go on, or it was another training.
        OutputError: it holds files that are not of a run, and would be written over.
    """
    last = find_newest(folder)
    if judge_only and not resume:
        _refuse_strangers(folder, (TEST,))
        return None
    if last is None:
        names = (START, METRICS, STEPS, RESULT, CURVES, page_name(1), picture_name(1))
        _refuse_strangers(folder, (*names, *(path.name for path, *_ in find_checkpoints(folder))))
        return None
    if not resume:
        raise OptionError(
            f"{folder}: a run is here already ({last.name}): go on with resume (--resume), or write elsewhere (out)"
        )
    checkpoint, trained = read_trained(last)
    _require_same_training(folder, facts, trained)
    (folder / RESULT).unlink(missing_ok=True)  # it says that the run is over
    return Resumed(last, int(checkpoint["global_step"]), int(trained["epoch"]))


def _require_same_training(folder: Path, facts: Mapping[str, Any], trained: Mapping[str, Any]) -> None:
    """Refuse to go on with another training than the one that a checkpoint's facts describe.

    Raises:
        OptionError: more epochs are trained than are wanted, or what differs.
    """
    ours, theirs = facts["settings"], trained["settings"]
    if trained["epoch"] > ours["epochs"]:
        raise OptionError(f"{folder}: {trained['epoch']} epochs are trained already, epochs is {ours['epochs']}")
    different = changed(facts["identity"], trained["identity"])
    different += ["policy"] if trained["policy"] != facts["policy"] else []
    free = _FREE if ours["schedule"] == "constant" else tuple(name for name in _FREE if name != "epochs")
    different += [name for name in ours if name not in free and ours[name] != theirs.get(name)]
    if different:
        listed = ", ".join(
            f"{name} ({theirs.get(name)} → {ours[name]})" if name in ours else name for name in different
        )
        raise OptionError(
            f"{folder}: this run was started with something else: {listed}; write elsewhere, or remove the folder"
        )


def _refuse_strangers(folder: Path, names: tuple[str, ...]) -> None:
    """Refuse a folder with files of these names that no run of hessrank has begun in it."""
    there = [name for name in names if os.path.lexists(folder / name)]
    if there and not any(is_beginning(folder / name) for name in (START, TEST)):
        raise OutputError(
            f"{folder}: holds {there[0]}, which is of no run of hessrank and would be written over: "
            "write elsewhere (out)"
        )


def is_beginning(path: Path) -> bool:
    """Return whether a file is one that a run of hessrank writes when it begins."""
    try:
        record = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(record, dict) and {"before", "notes", "settings"} <= record.keys()
