"""What a finished training left: whole, or an error that says where it is not."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from hessrank.distill.study.finished import read_result, read_start
from hessrank.errors import OutputError

RESULT = {"before": {"float": {"top1": 50.0}}, "last": {"top1": 60.0}, "best": {"top1": math.nan}, "best_epoch": 1}


def write(folder: Path, text: str) -> Path:
    (folder / "result.json").write_text(text)
    return folder


def test_a_result_is_read_with_numbers_that_are_none(tmp_path: Path) -> None:
    result = read_result(write(tmp_path, json.dumps(RESULT)))
    assert result.before.float_ == {"top1": 50.0}
    assert result.before.quantized is None
    assert math.isnan(result.best["top1"])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("", "cannot be read as JSON", id="empty"),
        pytest.param("[" * 5000, "cannot be read as JSON", id="deep"),
        pytest.param("3", "3 is not a mapping", id="a number"),
        pytest.param(json.dumps({**RESULT, "best_epoch": -1}), "best_epoch: -1 is not zero or more", id="bound"),
        pytest.param(json.dumps({**RESULT, "last": {"top1": "x"}}), "last.top1: 'x' is not a number", id="text"),
        pytest.param(json.dumps({**RESULT, "last": {"top5": 1.0}}), "not hold the same metrics", id="other metrics"),
        pytest.param(json.dumps({**RESULT, "before": {}}), "before.float: is missing", id="no network"),
    ],
)
def test_a_damaged_result_is_one_line_with_its_keys(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(OutputError) as caught:
        read_result(write(tmp_path, text))
    assert str(caught.value).startswith(f"{tmp_path / 'result.json'}: ")
    assert says in str(caught.value)
    assert str(caught.value).endswith("remove the folder of this training, and it is run again")


def test_a_start_that_is_gone_is_told(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"start\.json: there is no such file"):
        read_start(tmp_path)
