"""Small files that grow: refused at once, in one line that names the file and the option that lifts the limit."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import hessrank
from hessrank.data.samples import as_samples
from hessrank.errors import DataError, LoadError
from hessrank.files import size_limits
from hessrank.models import load_model, save_checkpoint

LIFTED = r"; if you trust it, add --trust-size \(in Python, with hessrank\.trusting_sizes\(\):\)$"
BILLION = 10**9


def zeros_in_npz(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("x.npy", "w") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (20, 1 << 20)})
        file.write(bytes(20 << 20))


def declared_in_npz(path: Path) -> None:
    """Write a member that declares 2 GiB in the archive's directory."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY")
    content = path.read_bytes()
    at = content.index(b"PK\x01\x02")
    path.write_bytes(content[: at + 24] + struct.pack("<I", 2 << 30) + content[at + 28 :])


def many_members(path: Path) -> None:
    """Write the end of an archive whose directory would have 90 MB."""
    path.write_bytes(b"PK\x03\x04" + bytes(26) + b"PK\x05\x06" + struct.pack("<4H2IH", 0, 0, 9, 9, 90 << 20, 30, 0))


def expanded(path: Path) -> None:
    torch.save(torch.zeros(1).expand(BILLION, 3), path)


def expanded_in_a_dict(path: Path) -> None:
    torch.save({"model": {"w": [torch.zeros(1).expand(BILLION)]}}, path)


def meta(path: Path) -> None:
    torch.save({"x": torch.empty(BILLION, 4, device="meta")}, path)


def long_header(path: Path) -> None:
    header = json.dumps({"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    path.write_bytes(struct.pack("<Q", 90 << 20) + header.ljust(90 << 20) + bytes(4))


def wide_png(path: Path) -> None:
    """Write a PNG whose header says 40 000 × 40 000."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">2I5B", 40_000, 40_000, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b""))


def wide_gif(path: Path) -> None:
    Image.new("P", (1, 1)).save(path)
    content = path.read_bytes()
    path.write_bytes(content[:6] + struct.pack("<2H", 65535, 65535) + content[10:])


def wide_tiff(path: Path) -> None:
    tags = {256: 60_000, 257: 60_000, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 60_000, 279: 1}
    entries = b"".join(struct.pack("<2H2I", tag, 4, 1, value) for tag, value in tags.items())
    path.write_bytes(b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4))


DATA: dict[str, tuple[str, Callable[[Path], None]]] = {
    "members unpacked": ("x.npz", zeros_in_npz),
    "members declared": ("x.npz", declared_in_npz),
    "a million members": ("x.npz", many_members),
    "an expanded tensor": ("x.pt", expanded),
    "a meta tensor": ("x.pt", meta),
    "a long header": ("x.safetensors", long_header),
    "a PNG": ("x.png", wide_png),
    "a GIF": ("x.gif", wide_gif),
    "a TIFF": ("x.tif", wide_tiff),
}


@pytest.mark.parametrize(("name", "write"), DATA.values(), ids=DATA)
def test_data_that_grow_are_refused(name: str, write: Callable[[Path], None], tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(size_limits, "MOST_BYTES", 16 << 20)
    write(tmp_path / name)
    with pytest.raises(DataError, match=rf"^\S+{name}: .*{LIFTED}"):
        hessrank.load_data(tmp_path / name)


MODELS: dict[str, Callable[[Path], None]] = {
    "a million members": many_members,
    "an expanded tensor": expanded_in_a_dict,
    "a long header": long_header,
}


@pytest.mark.parametrize("write", MODELS.values(), ids=MODELS)
def test_models_that_grow_are_refused(write: Callable[[Path], None], tmp_path: Path) -> None:
    write(tmp_path / "m.pth")
    with pytest.raises(LoadError, match=rf"^\S+m\.pth: .*{LIFTED}"):
        load_model(tmp_path / "m.pth", arch=lambda: nn.Linear(1, 1))


def test_the_limit_is_lifted_inside_the_block_only(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(1).expand(BILLION)}, tmp_path / "m.pth")
    with hessrank.trusting_sizes(), pytest.raises(LoadError, match="weights only"):
        load_model(tmp_path / "m.pth")
    with pytest.raises(LoadError, match=LIFTED):
        load_model(tmp_path / "m.pth")


@pytest.mark.parametrize("command", ["rank", "check", "export", "verify", "train", "study"])
def test_every_command_that_reads_a_model_has_the_option(command: str, monkeypatch) -> None:
    seen = []
    monkeypatch.setattr(size_limits, "_trusted", Recorded(seen))
    from hessrank.cli import main

    places = {"check": ["no.yaml", "no.pth"], "verify": ["no.pth", "no.csv"], "export": ["no.pth", "--out", "o.onnx"]}
    assert main([command, *places.get(command, ["no.pth"]), "--trust-size"]) == 2
    assert seen == [True, "reset"]


class Recorded:
    """Stands for the context variable: notes what it is set to."""

    def __init__(self, seen: list[object]) -> None:
        self._seen = seen

    def set(self, value: bool) -> str:
        self._seen.append(value)
        return "reset"

    def reset(self, token: str) -> None:
        self._seen.append(token)

    def get(self) -> bool:
        return False


@pytest.mark.parametrize("width", [2_000, BILLION])
def test_a_checkpoint_s_arguments_do_not_outgrow_it(width: int, tmp_path: Path) -> None:
    save_checkpoint(
        tmp_path / "c.pth", nn.Linear(1, 1), arch="hessrank.distill.tasks.lowlight.network:LowLight",
        arch_args={"dbf_width": width}, input_shape=(1, 32, 32),
    )  # fmt: skip
    with pytest.raises(LoadError, match=rf"c\.pth: the network that it is for would take .* GiB.*{LIFTED}"):
        load_model(tmp_path / "c.pth")


def test_modules_without_end_are_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(size_limits, "MOST_MODULES", 500)
    torch.save({"w": torch.zeros(1)}, tmp_path / "m.pth")

    def endless() -> nn.Module:
        made = nn.Sequential()
        while True:
            made.append(nn.ReLU())

    with pytest.raises(LoadError, match=r"m\.pth: the network has more than 500 modules"):
        load_model(tmp_path / "m.pth", arch=endless)


CONFIGURATIONS = {
    "layers": {"num_hidden_layers": BILLION},
    "words": {"vocab_size": BILLION},
    "width": {"hidden_size": 1 << 20, "intermediate_size": 1 << 20},
    "positions": {"max_position_embeddings": BILLION},
    "labels": {"num_labels": BILLION},
}


@pytest.mark.parametrize("changed", CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_a_configuration_does_not_outgrow_its_weights(changed: dict[str, int], tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    small = {"vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.BertConfig(**small, intermediate_size=8, max_position_embeddings=8)
    transformers.BertModel(config).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    with pytest.raises(LoadError, match=rf"{tmp_path}.*{LIFTED}") as caught:
        load_model(tmp_path)
    assert "\n" not in str(caught.value)


NEEDS_ROOM = {
    "random samples": {"spec": "random", "input_shape": (99_999, 99_999, 999)},
    "a large number": {"spec": "random", "input_shape": (3, 8, 8), "num_samples": 2**31 - 1},
}


@pytest.mark.parametrize("asked", NEEDS_ROOM.values(), ids=NEEDS_ROOM)
def test_what_no_machine_has_room_for_is_refused(asked: dict) -> None:
    with pytest.raises(DataError, match=r"random: \d+ samples of \S+ would take .* of memory, but .* are free"):
        hessrank.load_data(**asked)


def test_an_image_is_not_scaled_beyond_memory(tmp_path: Path) -> None:
    Image.new("L", (4, 4)).save(tmp_path / "x.png")
    with pytest.raises(DataError, match=r"--input-shape .*one sample would take"):
        hessrank.load_data(tmp_path / "x.png", input_shape=(3, 999_999, 999_999))


def test_the_largest_number_of_samples_takes_all() -> None:
    loader = torch.utils.data.DataLoader(torch.randn(2, 2), batch_size=1)
    assert len(as_samples(loader, 2**31 - 1)) == 2


def test_memory_that_runs_out_is_called_that(tmp_path: Path) -> None:
    """Give a process half a GiB more than it starts with, and a convolution that needs one."""
    script = (
        "import resource, sys, torch, hessrank.cli\nfrom hessrank.analysis import rank\n"
        "pages = int(open('/proc/self/statm').read().split()[0])\n"
        "resource.setrlimit(resource.RLIMIT_AS, (pages * 4096 + (1 << 29),) * 2)\n"
        "sys.exit(hessrank.cli.main(sys.argv[1:]))\n"
    )
    (tmp_path / "net.py").write_text("from torch import nn\ndef make(): return nn.Conv2d(1, 64, 3)\n")
    torch.save(nn.Conv2d(1, 64, 3).state_dict(), tmp_path / "m.pth")
    arguments = ["m.pth", "--arch", "net.py:make", "--data", "random", "--input-shape", "1,2000,2000"]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments, "--num-samples", "1", "--threads", "1"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "out of memory" in done.stderr
