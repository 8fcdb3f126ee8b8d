"""The five things of one's own that CONTRIBUTING.md shows work as they stand there."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.page_blocks import blocks, run
from helpers.places import ROOT

from hessrank.analysis.result.ranking import Ranking
from hessrank.quant.policy import Policy

PAGE = ROOT / "CONTRIBUTING.md"


def test_the_five_work_as_they_stand_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = run(blocks(PAGE), tmp_path)
    ranking, policy = names["ranking"], names["policy"]
    assert isinstance(ranking, Ranking)
    assert set(ranking.to_frame()["estimator"]) == {"mine.py:MyEstimator"}
    assert ranking.info["loss"] == "my-loss"
    assert isinstance(policy, Policy)
    assert "w_fakequantize: mine.py:MyQuantizer" in str(policy)
    assert "weight: 10" in str(policy)
    assert (tmp_path / "runs" / "run" / "result.json").exists()
