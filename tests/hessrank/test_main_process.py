"""The process that speaks and writes."""

from __future__ import annotations

import pytest

from hessrank.main_process import is_main_process

RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")


@pytest.mark.parametrize("name", RANKS)
def test_it_is_the_first_by_every_launchers_count(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for other in RANKS:
        monkeypatch.delenv(other, raising=False)
    assert is_main_process()
    for rank, first in (("0", True), ("", True), ("1", False)):
        monkeypatch.setenv(name, rank)
        assert is_main_process() is first
