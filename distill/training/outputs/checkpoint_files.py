"""The checkpoints that lie in a run's folder, found by their names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from hessrank.distill.training.outputs.file_names import BEST, LAST

_NAME = re.compile(rf"({LAST}|{BEST})-epoch(\d+)\.ckpt")


def find_checkpoints(folder: Path) -> Iterator[tuple[Path, str, int]]:
    """Yield the checkpoints in a folder, each with its kind and its epoch."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        match = _NAME.fullmatch(path.name)
        if match:
            yield path, match[1], int(match[2])


def find_newest(folder: Path) -> Path | None:
    """Return the checkpoint of the last epoch that was trained; None without one."""
    found = [(epoch, path) for path, kind, epoch in find_checkpoints(folder) if kind == LAST]
    return max(found)[1] if found else None
