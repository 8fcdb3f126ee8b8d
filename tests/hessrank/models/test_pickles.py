"""Files of torch.save: no code runs unless it is trusted."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from hessrank.errors import LoadError
from hessrank.models.pickles import load_tensors, read_pickle, unsafe_names


def test_tensors_need_no_trust_and_objects_do(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2)}, tmp_path / "w.pth")
    torch.save(nn.Linear(1, 1), tmp_path / "m.pth")
    assert load_tensors(tmp_path / "w.pth")["w"].tolist() == [1.0, 1.0]
    assert unsafe_names(tmp_path / "w.pth") == []
    assert "torch.nn.modules.linear.Linear" in unsafe_names(tmp_path / "m.pth")
    with pytest.raises(LoadError, match=r"would run code \(torch.nn.modules.linear.Linear.*--trust-pickle"):
        read_pickle(tmp_path / "m.pth", trust_pickle=False)
    assert isinstance(read_pickle(tmp_path / "m.pth", trust_pickle=True), nn.Linear)


def test_a_damaged_file_is_one_line(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(200)}, tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    path = tmp_path / "cut.pth"
    path.write_bytes((tmp_path / "w.pth").read_bytes()[:300])
    for trust in (False, True):
        with pytest.raises(LoadError) as caught:
            read_pickle(path, trust_pickle=trust)
        assert "\n" not in str(caught.value)
