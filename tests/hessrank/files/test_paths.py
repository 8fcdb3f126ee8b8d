"""Names of files that are no UTF-8 go through every stage; names that cannot be seen are shown all the same."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from hessrank import Policy, Ranking, load_model, make_policy, rank
from hessrank.cli.output_paths import check_outputs
from hessrank.data import load_data
from hessrank.errors import OutputError
from hessrank.files.paths import shown_path

ODD = os.fsdecode(b"m\xff")


def test_names_that_are_no_utf8_go_through_every_stage(tmp_path: Path) -> None:
    code, weights, data = (tmp_path / f"{ODD}{ending}" for ending in (".py", ".pth", ".npy"))
    code.write_text("from torch import nn\n\ndef net():\n    return nn.Linear(4, 2)\n")
    torch.save(nn.Linear(4, 2).state_dict(), os.fspath(weights))
    np.save(data, torch.randn(3, 4).numpy())
    loaded = load_model(weights, arch=f"{code}:net")
    ranking = rank(loaded.model, load_data(data), max_probes=2)
    ranking.info["command"] = f"hessrank {weights}"
    ranking.to_csv(tmp_path / f"{ODD}.csv")
    again = Ranking.read(tmp_path / f"{ODD}.csv")
    assert again.info["command"] == ranking.info["command"].replace("\udcff", r"\udcff")
    policy = make_policy(again)
    policy.write(tmp_path / f"{ODD}.yaml")
    assert Policy.read(tmp_path / f"{ODD}.yaml") == policy


@pytest.mark.parametrize(("path", "shown"), [("a b.csv", "a b.csv"), (" ", "' '"), ("", "''"), ("a\nb", "a b")])
def test_a_path_is_shown_as_one_line_that_is_seen(path: str, shown: str) -> None:
    assert shown_path(path) == shown


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"out": Path(" ")}, "' ': the table is a CSV file: let its name end in .csv"),
        ({"plots": [Path(" ")]}, "' ': no picture format ''; known: .png, .svg, .pdf, .jpg, .jpeg, .webp"),
        ({"beside": {Path("no/ "): ".csv"}}, "no/: cannot be written: there is no folder 'no'; make it first"),
    ],
)
def test_an_output_of_nothing_but_spaces_is_named(
    options: dict[str, Any], problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plots = options.pop("plots", [])
    with pytest.raises(OutputError) as raised:
        check_outputs(options.pop("out", None), *plots, **options)
    assert str(raised.value) == problem
