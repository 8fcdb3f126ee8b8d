"""Files that are no model: each is refused in one line that says what it is, and none runs code."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from hessrank.errors import LoadError
from hessrank.models import load_model


def refused(path: Path | str, **kwargs) -> str:
    with pytest.raises(LoadError) as caught:
        load_model(path, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    return message


class Hostile:
    """Makes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return (os.mkdir, (str(self.target),))


class TestHostilePickles:
    @pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
    def test_torch_save(self, tmp_path, zipped):
        target = tmp_path / "pwned"
        held = {"model": {"weight": torch.zeros(1)}, "extra": Hostile(target)}
        torch.save(held, tmp_path / "m.pth", _use_new_zipfile_serialization=zipped)
        message = refused(tmp_path / "m.pth", arch=lambda: nn.Linear(1, 1))
        assert "would run code" in message
        assert "mkdir" in message
        assert "--trust-pickle" in message
        assert not target.exists()
        load_model_trusting(tmp_path / "m.pth")
        assert target.exists()  # the file is hostile indeed

    def test_its_names_are_shown_without_their_control_characters(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "m.pth", "w") as archive:
            archive.writestr("m/data.pkl", b"\x80\x02}X\x01\0\0\0ac\x1b[31mevil\nEvil\n)\x81s.")
            archive.writestr("m/version", "3")
        message = refused(tmp_path / "m.pth")
        assert "would run code (�[31mevil.Evil)" in message
        assert message.isprintable()

    def test_plain_pickle(self, tmp_path):
        (tmp_path / "m.pkl").write_bytes(pickle.dumps(Hostile(tmp_path / "pwned")))
        assert "a plain Python pickle" in refused(tmp_path / "m.pkl", trust_pickle=True)
        assert not (tmp_path / "pwned").exists()

    def test_exported_program(self, tmp_path):
        path, target = tmp_path / "m.pt2", tmp_path / "pwned"
        torch.export.save(torch.export.export(nn.Linear(2, 2), (torch.rand(1, 2),)), path)
        with zipfile.ZipFile(path) as archive:
            content = {name: archive.read(name) for name in archive.namelist()}
        inputs = next(name for name in content if "sample_inputs" in name)
        buffer = io.BytesIO()
        torch.save(Hostile(target), buffer)
        content[inputs] = buffer.getvalue()
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in content.items():
                archive.writestr(name, data)
        refused(path)
        assert not target.exists()
        refused(path, trust_pickle=True)
        assert target.exists()  # torch.export.load did fall back to a full pickle


def load_model_trusting(path: Path) -> None:
    with pytest.raises(LoadError, match="do not fit"):
        load_model(path, arch=lambda: nn.Linear(1, 1), trust_pickle=True)


class TestPaths:
    def test_missing_file_names_the_nearest(self, tmp_path):
        (tmp_path / "model.pth").touch()
        message = refused(tmp_path / "modle.pth")
        assert "no such file; nearest is" in message
        assert "model.pth'" in message

    def test_missing_file_with_none_near(self, tmp_path):
        assert refused(tmp_path / "x.pth").endswith("there is no such file")

    def test_missing_folder(self, tmp_path):
        assert "there is no folder" in refused(tmp_path / "no" / "x.pth")

    def test_home_of_nobody(self):
        assert "cannot be looked up" in refused("~no-such-user-anywhere/m.pth")

    def test_name_too_long(self, tmp_path):
        assert "cannot be looked up: " in refused(tmp_path / ("m" * 300))

    def test_folder(self, tmp_path):
        assert "this is a folder" in refused(tmp_path)

    def test_pipe(self, tmp_path):
        os.mkfifo(tmp_path / "pipe")
        assert "not a regular file" in refused(tmp_path / "pipe")

    def test_no_permission(self, tmp_path, monkeypatch):
        (tmp_path / "m.pth").write_bytes(b"x")

        def denied(self, *args, **kwargs):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(os, "open", denied)
        assert "cannot be opened for reading: Permission denied" in refused(tmp_path / "m.pth")


CONTENTS = {
    "empty": (b"", "is empty"),
    "html": (b"\n<!DOCTYPE html><html>not found</html>", "HTML page"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "git lfs pull"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(64), "HDF5"),
    "tflite": (b"\x1c\0\0\0TFL3" + bytes(64), "TensorFlow Lite"),
    "gguf": (b"GGUF\3\0\0\0" + bytes(64), "GGUF"),
    "gzip": (b"\x1f\x8b\x08" + bytes(64), "gzip"),
    "onnx": (b"\x08\x0a\x12\x07pytorch\x1a\x052.9.0:\x04", "ONNX"),
    "text": ("weights: ünïcode\n".encode() * 9, "a text file"),
    "one byte": (b"\x08", "not a model file"),
    "tensorflow": (b"\x08\x01\x12\x10" + bytes(9), "not a model file"),
    "noise": (bytes(range(255, 90, -1)) + bytes(9), "not a model file"),
}


class TestContents:
    @pytest.mark.parametrize(("content", "says"), CONTENTS.values(), ids=CONTENTS.keys())
    def test_other_formats(self, tmp_path, content, says):
        (tmp_path / "m.pth").write_bytes(content)
        assert says in refused(tmp_path / "m.pth")

    def test_tar(self, tmp_path):
        with tarfile.open(tmp_path / "m.pth", "w") as archive:
            archive.addfile(tarfile.TarInfo("model.bin"))
        assert "a tar archive" in refused(tmp_path / "m.pth")

    def test_npy(self, tmp_path):
        np.save(tmp_path / "m.npy", np.zeros(3))
        assert "a NumPy array, not a model" in refused(tmp_path / "m.npy")

    def test_npz(self, tmp_path):
        np.savez(tmp_path / "m.npz", x=np.zeros(3))
        assert "archive of NumPy arrays" in refused(tmp_path / "m.npz")

    def test_keras(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
            archive.writestr("config.json", "{}")
            archive.writestr("model.weights.h5", "")
        assert "a Keras model" in refused(tmp_path / "m.keras")

    def test_zipped_model(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
            archive.writestr("model.pth", "")
        assert "holds 'model.pth'; unpack it" in refused(tmp_path / "m.zip")

    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    def test_torchscript(self, tmp_path):
        torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.rand(1, 2)), tmp_path / "m.pt")
        message = refused(tmp_path / "m.pt", trust_pickle=True)
        assert "TorchScript" in message
        assert "--arch" in message


class TestTruncated:
    @pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
    @pytest.mark.parametrize("kept", [0.3, 0.9])
    def test_torch_save(self, tmp_path, zipped, kept):
        path = tmp_path / "m.pth"
        torch.save(nn.Linear(30, 30).state_dict(), path, _use_new_zipfile_serialization=zipped)
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * kept)])
        assert "cut short or damaged" in refused(path, arch=lambda: nn.Linear(30, 30))

    @pytest.mark.parametrize("kept", [40, -5])
    def test_safetensors(self, tmp_path, kept):
        path = tmp_path / "m.safetensors"
        save_file({"w": torch.zeros(9)}, path)
        path.write_bytes(path.read_bytes()[:kept])
        assert "cut short or damaged" in refused(path, arch=lambda: nn.Linear(1, 1))

    def test_exported_program(self, tmp_path):
        path = tmp_path / "m.pt2"
        torch.export.save(torch.export.export(nn.Linear(2, 2), (torch.rand(1, 2),)), path)
        path.write_bytes(path.read_bytes()[:-30])
        assert "cut short or damaged" in refused(path)

    def test_trust_does_not_help(self, tmp_path):
        path = tmp_path / "m.pth"
        torch.save(nn.Linear(30, 30), path, _use_new_zipfile_serialization=False)
        path.write_bytes(path.read_bytes()[:-100])
        assert "the pickle cannot be read" in refused(path, trust_pickle=True)

    def test_more_claimed_than_memory_holds(self, tmp_path, monkeypatch):
        torch.save({"w": torch.zeros(1)}, tmp_path / "m.pth")

        def too_much(*args, **kwargs):
            raise MemoryError

        monkeypatch.setattr(torch, "load", too_much)
        for trust in (False, True):
            assert "does not fit into memory" in refused(tmp_path / "m.pth", trust_pickle=trust)

    def test_zip_with_a_damaged_pickle(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "m.pth", "w") as archive:
            archive.writestr("m/data.pkl", b"\x80\x02}q\x00(X")
            archive.writestr("m/version", "3")
        assert "cut short or damaged" in refused(tmp_path / "m.pth")
