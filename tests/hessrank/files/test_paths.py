"""Names of files that are no UTF-8: code and data are read, records are written with it spelled out."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from torch import nn

from hessrank import Policy, Ranking, load_model, make_policy, rank
from hessrank.data import load_data

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
