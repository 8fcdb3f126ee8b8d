"""Checkpoints of our own, written and read."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from hessrank.errors import HessrankError, LoadError, OutputError
from hessrank.models import load_model, save_checkpoint

LOWLIGHT = "hessrank.distill.tasks.lowlight:LowLight"


def linear(size: int = 2) -> nn.Linear:
    return nn.Linear(size, size)


def save(path: Path, model: nn.Module | None = None, **changes) -> nn.Module:
    torch.manual_seed(0)
    model = model or linear()
    arguments = {"arch": "mine:linear", "arch_args": {"size": 2}, "input_shape": (2,), **changes}
    save_checkpoint(path, model, **arguments)
    return model


def rewrite(path: Path, **changes) -> None:
    torch.save({**torch.load(path), **changes}, path)


def fails(path: Path, error: type[HessrankError] = LoadError, **kwargs) -> str:
    with pytest.raises(error) as caught:
        load_model(path, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "m.pth"


class TestRoundTrip:
    def test_everything_comes_back(self, path):
        inputs = torch.full((3, 2), 7, dtype=torch.uint16)
        model = save(path, inputs=inputs, metadata={"psnr": 23.5, "seed": [1, 2]})
        loaded = load_model(path, arch=linear)
        assert torch.equal(loaded.model.weight, model.weight)
        assert loaded.format == "hessrank checkpoint"
        assert loaded.arch_args == {"size": 2}
        assert loaded.input_shape == (2,)
        assert loaded.inputs.dtype == torch.uint16
        assert torch.equal(loaded.inputs, inputs)
        assert torch.load(path, weights_only=True)["metadata"] == {"psnr": 23.5, "seed": [1, 2]}

    def test_neither_shape_nor_inputs(self, path):
        save(path, input_shape=None)
        loaded = load_model(path, arch=linear)
        assert loaded.input_shape is None
        assert loaded.inputs is None

    def test_a_network_of_hessrank_needs_no_arch(self, path):
        from hessrank.distill.tasks.lowlight import LowLight

        torch.manual_seed(0)
        model = LowLight()
        save_checkpoint(path, model, arch=LOWLIGHT, arch_args={}, input_shape=(1, 32, 32))
        loaded = load_model(path)
        assert loaded.arch == LOWLIGHT
        assert all(torch.equal(v, model.state_dict()[k]) for k, v in loaded.model.state_dict().items())

    def test_given_arch_args_replace_those_of_the_file(self, path):
        save(path)
        assert "of another shape" in fails(path, arch=linear, arch_args={"size": 3})

    def test_same_content_same_bytes_under_any_name(self, path, tmp_path):
        save(path)
        save(tmp_path / "other.pt")
        assert path.read_bytes() == (tmp_path / "other.pt").read_bytes()

    def test_model_is_not_changed(self, path):
        model = linear().half()
        save(path, model)
        assert model.training
        assert model.weight.requires_grad
        assert load_model(path, arch=linear).model.weight.dtype == torch.float16


class TestArchitectureOfTheFile:
    """A file that names code to import is a file that runs code: only networks of ours are imported."""

    def test_other_code_has_to_be_repeated(self, path):
        save(path)
        assert "repeat it: --arch mine:linear" in fails(path)

    @pytest.mark.parametrize(
        ("arch", "arch_args"),
        [
            ("evil_code:Net", {}),
            ("hessrank.evil_code.py:Net", {}),
            ("hessrank.plugins:import_attribute", {"reference": "evil_code:Net", "what": "x"}),
            ("hessrank.plugins:importlib.import_module", {"name": "evil_code"}),
            ("hessrank.plugins:sys", {}),
            ("hessrank.__main__:Net", {}),
            ("hessrank.plugins:Registry", {"what": "x"}),
            ("hessrank.models.architecture:nn.Identity", {}),
            ("hessrank_evil.evil_code:Net", {}),
        ],
    )
    def test_code_is_not_run_on_the_word_of_a_file(self, path, tmp_path, monkeypatch, arch, arch_args):
        (tmp_path / "evil_code.py").write_text("open('pwned', 'w').close()\nclass Net: pass\n")
        (tmp_path / "hessrank.evil_code.py").write_text("open('pwned', 'w').close()\nclass Net: pass\n")
        monkeypatch.chdir(tmp_path)
        monkeypatch.syspath_prepend(tmp_path)
        save(path, arch=arch, arch_args=arch_args)
        fails(path)
        assert not (tmp_path / "pwned").exists()

    def test_arguments_of_the_file_that_it_does_not_take(self, path):
        save(path, arch=LOWLIGHT, arch_args={"widht": 4})
        message = fails(path)
        assert message.startswith(f"{path}: its architecture {LOWLIGHT}: calling it with")
        assert "it takes (" in message

    def test_network_that_this_version_lacks(self, path):
        save(path, arch="hessrank.distill.tasks.lowlight:Nonesuch")
        assert "this version of hessrank has no architecture" in fails(path)


class TestDamagedEntries:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("arch", 3),
            ("arch_args", None),
            ("input_shape", "1,2"),
            ("input_shape", [0]),
            ("inputs", [1.0]),
            ("model", None),
        ],
    )
    def test_wrong_type(self, path, name, value):
        save(path)
        rewrite(path, **{name: value})
        assert f"entry {name!r} is missing or of the wrong type" in fails(path, arch=linear)

    def test_newer_format(self, path):
        save(path)
        rewrite(path, hessrank=2)
        assert "written by a newer hessrank (format 2, this one reads 1)" in fails(path, arch=linear)


class TestWriting:
    def test_a_slice_brings_no_more_than_itself(self, path, tmp_path):
        save(path, inputs=torch.zeros(1000, 2)[:3])
        save(tmp_path / "small.pth", inputs=torch.zeros(3, 2))
        assert path.read_bytes() == (tmp_path / "small.pth").read_bytes()

    def test_a_folder(self, path):
        path.mkdir()
        with pytest.raises(OutputError, match="folder"):
            save(path)

    def test_values_that_are_not_plain(self, path):
        with pytest.raises(OutputError, match=r"plain values only, not numpy.*convert"):
            save(path, metadata={"psnr": np.float64(3.0)})
        assert os.listdir(path.parent) == []

    def test_values_that_cannot_be_pickled(self, path):
        with pytest.raises(OutputError, match="cannot be written"):
            save(path, metadata={"f": lambda: 0})
        assert os.listdir(path.parent) == []

    def test_missing_folder(self, tmp_path):
        with pytest.raises(OutputError, match="no folder"):
            save(tmp_path / "no" / "m.pth")

    def test_failure_keeps_the_old_file(self, path):
        path.write_bytes(b"old")
        with pytest.raises(OutputError):
            save(path, metadata={"f": lambda: 0})
        assert path.read_bytes() == b"old"
        assert os.listdir(path.parent) == [path.name]
