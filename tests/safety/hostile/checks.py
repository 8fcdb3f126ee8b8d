"""What must hold after every case, whatever it did."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from pathlib import Path

from hessrank.text import printable

from .cases import Case
from .runner import BYTES, SECONDS, Ended

Snapshot = dict[str, tuple[object, ...]]
_TRACES = (
    "Traceback (most recent call last)",
    "Exception ignored",
    "Segmentation",
    "Fatal Python error",
    "a bug",
)
_DATA, _NETWORK = (
    ("data", "sample", "input", "target", "label"),
    ("network", "weight", "logits", "layer", "quantizer"),
)
_RANKING = ("the ranking", "ranking.csv")
_KINDS = {
    **dict.fromkeys(("x.npy", "xy.npz", "x.pt", "x.safetensors", "0.png", "1.png"), _DATA),
    **dict.fromkeys(("state.pth", "whole.pth", "state.safetensors", "digits.pth"), _NETWORK),
    **dict.fromkeys(("ranking.csv", "ranking.json"), _RANKING),
    **dict.fromkeys(("policy.yaml", "hand.yaml"), ("the policy",)),
    "config.yaml": ("run.yaml",),
    **dict.fromkeys(("trained.ckpt", "quantized.pth"), ("the checkpoint", "quantizer")),
    "latency.csv": ("the latencies", "--latency"),
    "--budget-latency": ("latency",),
    "--budget-mean-bits": ("mean weight bits",),
    "--budget-size-mib": ("size",),
    **dict.fromkeys(("--high-bits", "--base-bits"), ("bit-widths",)),
}
"""What an error may say instead of the name of a file, of which the command has one."""
_FOLDERS_OF_RUNS = ("runs", "studies", "new")


def snapshot(root: Path) -> Snapshot:
    """Return everything below a folder: kind, mode, time of change and content."""
    found: Snapshot = {}
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(folder, name)
            state = path.lstat()
            content: object = None
            if stat.S_ISREG(state.st_mode):
                big = state.st_size > 2**30  # and empty
                content = state.st_size if big else hashlib.sha256(path.read_bytes()).digest()
            elif path.is_symlink():
                content = os.readlink(path)
            changed = 0 if stat.S_ISDIR(state.st_mode) else state.st_mtime_ns
            found[str(path.relative_to(root))] = (stat.S_IFMT(state.st_mode), state.st_mode, changed, content)
    return found


def broken(case: Case, ended: Ended, before: Snapshot, after: Snapshot) -> list[str]:
    """Return what does not hold, each as ``kind: more``; none if all does.

    Args:
        case: what was run in the folder ``work`` of the one that the snapshots are of.
        ended: how it ended.
        before: what lay there.
        after: what lies there now.
    """
    return [*_of_the_end(case, ended), *_of_the_bounds(ended), *_of_the_files(case, ended, before, after)]


def _of_the_end(case: Case, ended: Ended) -> list[str]:
    problems = []
    said = ended.err + ended.out
    traced = next((sign for sign in _TRACES if sign in said), None)
    if traced is not None:
        return [f"traceback: {_place(said) or traced}"]
    if ended.status not in ((0, 1, 2) if case.command == "check" else (0, 2)):
        return [f"exit status {ended.status}"]
    if not case.changed and ended.status == 2:
        return [f"fails, and nothing is spoiled: {ended.err[-200:]}"]
    errors = [line for line in ended.err.splitlines() if line.startswith("error:")]
    if ended.status == 2 and len(errors) != 1:
        problems.append(f"{len(errors)} lines of error")
    if ended.status == 2 and len(errors) == 1 and not _names(errors[0], case):
        problems.append(f"the error names neither file nor option: {errors[0][:120]}")
    if ended.status != 2 and errors:
        problems.append("an error, and no exit status that says so")
    if any(not (letter.isprintable() or letter in "\n\t\r") for letter in said):
        problems.append("control characters are printed")
    return problems


def _of_the_bounds(ended: Ended) -> list[str]:
    slow = [f"{ended.seconds:.0f} s"] if ended.seconds > SECONDS else []
    return [*slow, *([f"{ended.grown / 2**30:.1f} GiB"] if ended.grown > BYTES else [])]


def _of_the_files(case: Case, ended: Ended, before: Snapshot, after: Snapshot) -> list[str]:
    problems = []
    wanted = _wanted(case)
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) == after.get(name):
            continue
        if name not in after:
            change = "gone"
        else:
            change = "changed" if name in before else "new"
        asked_for = any(name == one or name.startswith(f"{one}/") or one.startswith(f"{name}/") for one in wanted)
        unfinished = re.search(r"\.(partial|lock|tmp)\b|(^|/)\.", name) is not None
        if unfinished or not (asked_for if ended.status in (0, 1) else _goes_on_from(name, case)):
            problems.append(f"{change} file: {re.sub(r'[0-9]+', 'N', name)}")
    return problems


def _goes_on_from(name: str, case: Case) -> bool:
    """Return whether a file may be there after a failure: what a study or a resumed run has got so far."""
    folder = "work/studies" if case.command == "study" else "work/runs" if "runs" in case.files else None
    return folder is not None and f"{name}/".startswith(f"{folder}/") and not name.endswith(".ckpt")


def _wanted(case: Case) -> set[str]:
    """Return the paths, from above ``work``, that the command may write: those it was given, less those it reads."""
    given = (word.partition("=") if word.startswith("--") else ("", "=", word) for word in case.arguments)
    words = {word for _, equals, word in given if equals}
    paths = {os.path.normpath(os.path.join("work", word)) for word in words}
    beside = {os.path.splitext(path)[0] + ".json" for path in paths}
    folders = {f"work/{name}" for name in _FOLDERS_OF_RUNS} if case.command in ("train", "study") else set()
    return (paths | beside) - {f"work/{name}" for name in case.files} | folders


def _names(error: str, case: Case) -> bool:
    """Return whether an error names one of the case's files and options, or says what it is.

    A fault of one file may show in another: pictures of another size are told with the weights that do not fit.
    ``--max-probes`` may be ``max_probes``.
    """
    names = [*case.names, *(Path(name).name for name in case.files)]
    kinds = [kind for name in names for kind in _KINDS.get(name, ())]
    plain = error.replace("_", "-").lower()
    as_written = [printable(os.path.normpath(name)) or repr(name) for name in names]  # quoted, if all spaces
    return any(name and name in error for name in as_written) or any(
        shown and shown in plain for shown in (*map(_shown, names), *kinds)
    )


def _shown(name: str) -> str:
    """Return the part of a name that an error shows as it is, in the writing of options."""
    letters = max(re.findall(r"[ -~]+", os.path.normpath(name)), key=len, default="")
    return letters.replace("_", "-").lower().strip().lstrip("-")[:60]


def _place(said: str) -> str | None:
    """Return the last place in hessrank of a traceback, and what was raised; or the error that tells of a bug."""
    places = re.findall(r'File "[^"]*?/((?:hessrank|analysis|quant|distill)/[^"]+)", line (\d+), in (\S+)', said)
    raised = re.findall(r"^([\w.]+(?:Error|Exception|Warning|Interrupt|Exit|Signal|Bomb\w*)\b.*)", said, re.MULTILINE)
    told = re.search(r"^error: .*a bug.*", said, re.MULTILINE)
    if told is not None:
        return told[0][:200]
    if not places:
        return raised[-1][:150] if raised else None
    return f"{places[-1][0]}:{places[-1][1]} {places[-1][2]}: {raised[-1][:150] if raised else '?'}"
