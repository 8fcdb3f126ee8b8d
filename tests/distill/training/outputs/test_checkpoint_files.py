"""Checkpoints of a folder, found by name."""

from __future__ import annotations

from pathlib import Path

from hessrank.distill.training.outputs.checkpoint_files import find_checkpoints, find_newest
from hessrank.distill.training.outputs.file_names import BEST, LAST, checkpoint_name


def test_the_newest_has_the_highest_epoch(tmp_path: Path) -> None:
    assert find_newest(tmp_path) is None
    for kind, epoch in ((LAST, 2), (LAST, 10), (BEST, 11)):
        (tmp_path / checkpoint_name(kind, epoch)).touch()
    (tmp_path / "last-epoch9999.txt").touch()
    newest = find_newest(tmp_path)
    assert newest is not None
    assert newest.name == "last-epoch0010.ckpt"
    assert [(kind, epoch) for _, kind, epoch in find_checkpoints(tmp_path)] == [(BEST, 11), (LAST, 2), (LAST, 10)]
    assert list(find_checkpoints(tmp_path / "nowhere")) == []
