"""Names of what a run leaves; they are part of the format of its folder."""

from __future__ import annotations

from hessrank.distill.training.outputs.file_names import checkpoint_name, page_name, picture_name


def test_names_sort_by_epoch() -> None:
    assert checkpoint_name("last", 0) == "last-epoch0000.ckpt"
    assert [page_name(3), picture_name(12)] == ["results/epoch0003.txt", "pictures/epoch0012.png"]
    names = [checkpoint_name("best", epoch) for epoch in (2, 10, 100)]
    assert sorted(names) == names
