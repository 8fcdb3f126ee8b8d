"""What docs/training.md says of keys, losses and files is what the code has."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from helpers.places import ROOT
from helpers.training_networks import HINTED, trained
from pydantic_core import PydanticUndefined

from hessrank.distill.run_file import RunKeys
from hessrank.distill.study import read_study
from hessrank.distill.study.file import StudyKeys
from hessrank.distill.teacher.loss_registry import DISTILLATION_LOSSES

PAGE = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")


def shown(value: Any) -> str:
    if value is None or value is PydanticUndefined or value in ((), {}):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


KEYS = {**RunKeys.model_fields, **StudyKeys.model_fields}


@pytest.mark.parametrize("name", KEYS)
def test_every_key_stands_there_with_its_default_and_its_meaning(name: str) -> None:
    field = KEYS[name]
    row = f"| `{name}` | {shown(field.get_default(call_default_factory=True))} | {field.description} |"
    assert row in PAGE


def test_no_key_stands_there_that_is_none() -> None:
    tables = re.findall(r"\| key \| default \| meaning \|\n\|---\|---\|---\|\n((?:\|.*\n)+)", PAGE)
    assert {name for table in tables for name in re.findall(r"^\| `(\w+)` \|", table, flags=re.MULTILINE)} == set(
        KEYS
    )


def test_every_distillation_loss_stands_there() -> None:
    assert set(re.findall(r"^\| `([\w-]+)` \| (?:mean|where|the|which)", PAGE, flags=re.MULTILINE)) == set(
        DISTILLATION_LOSSES
    )


def test_a_training_leaves_what_the_page_says(tmp_path: Path) -> None:
    trained(tmp_path, HINTED, epochs=1)
    table = PAGE[PAGE.index("| in the run's folder |") : PAGE.index("Checkpoints are written beside")]
    named = set(re.findall(r"`([\w./-]+)`", "".join(line.split("|")[1] for line in table.splitlines()[2:] if line)))
    stems = {re.sub(r"\d{4}", "", name).rstrip("/").split("/")[0] for name in named}
    for path in tmp_path.iterdir():
        assert re.sub(r"\d{4}", "", path.name) in stems, path.name


def test_the_studys_file_reads() -> None:
    study = read_study(ROOT / "examples" / "lowlight" / "study.yaml")
    assert len(study.keys.seeds) >= 3
    assert len(study.experiments) >= 20
