"""Programs of torch.export."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from hessrank.errors import LoadError
from hessrank.models.exported import exported_note, read_exported


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "linear.pt2"
    torch.export.save(torch.export.export(nn.Sequential(nn.Linear(2, 1)), (torch.ones(3, 2),)), path)
    return path


def test_a_program_is_read_with_its_input_if_it_is_trusted(file: Path) -> None:
    model, inputs = read_exported(file, trust_pickle=True)
    assert inputs is not None
    assert inputs.shape == (3, 2)
    assert "0" in dict(model.named_modules())
    assert model(inputs).shape == (3, 1)
    with pytest.raises(LoadError, match="--trust-pickle"):
        read_exported(file, trust_pickle=False)


def test_a_damaged_program_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "cut.pt2"
    path.write_bytes(b"PK\x03\x04")
    with pytest.raises(LoadError, match=r"torch\.export cannot read this program") as caught:
        read_exported(path, trust_pickle=True)
    assert "\n" not in str(caught.value)


def test_the_note_names_the_shape() -> None:
    assert exported_note(torch.zeros(1, 3)).startswith("exported with an input of 1×3;")
    assert exported_note(None).startswith("exported;")
