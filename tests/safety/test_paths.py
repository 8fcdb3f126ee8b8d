"""Whatever a path is, one line says what is wrong with it, and nothing waits for it."""

from __future__ import annotations

import errno
import os
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

import hessrank
from hessrank.cli import main
from hessrank.distill.run_file import read_run
from hessrank.distill.study import read_study
from hessrank.errors import DataError, HessrankError, LoadError, OptionError, OutputError
from hessrank.files.paths import existing_path, readable_file
from hessrank.files.temporary_folder import temporary_folder
from hessrank.out_of_memory import is_out_of_memory
from hessrank.plugins import import_attribute
from hessrank.quant.bit_choice.allocation.latency import read_latency
from hessrank.quant.layer_graph.graph import Graph
from hessrank.quant.prepare.state import load_state

pytestmark = pytest.mark.timeout(60)  # nothing may wait for a pipe

BAD = {
    "": "path is empty",
    ".": "this is a folder",
    "/": "this is a folder",
    "loop": "cannot be looked up: Too many levels of symbolic links",
    "x" * 300: "cannot be looked up: File name too long",
    "a\0b": "a�b: cannot be looked up: embedded null",
    "~nobody-at-all/x": "cannot be looked up: Could not determine home",
    "/dev/zero": "this is not a regular file",
    "/dev/full": "this is not a regular file",
    "/proc/self/mem": "cannot be opened for reading: Input/output error",
    "pipe": "this is not a regular file",
    "socket": "socket: ",
    "dangling": "dangling: this is a link to what is not there, nothing",
    os.fsdecode(b"\xff.csv"): "�.csv: there is no such file",
    "file/below": "cannot be looked up: Not a directory",
    "-": "-: there is no such file",
}


@pytest.fixture
def strange(tmp_path: Path, monkeypatch) -> Path:
    """Go to a folder with a pipe, a socket and links that lead nowhere."""
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    os.symlink("loop", "loop")
    os.symlink("nothing", "dangling")
    Path("file").write_text("text")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
    return tmp_path


@pytest.mark.parametrize(("path", "message"), BAD.items(), ids=map(ascii, range(len(BAD))))
def test_what_cannot_be_read_is_said(path: str, message: str, strange: Path) -> None:
    with pytest.raises(LoadError) as caught:
        readable_file(path, error=LoadError)
    assert message in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_file_that_may_not_be_read_is_said(tmp_path: Path, monkeypatch) -> None:
    def denied(*_: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    (tmp_path / "x").touch()
    monkeypatch.setattr(os, "open", denied)
    with pytest.raises(DataError, match=r"cannot be opened for reading: Permission denied$"):
        readable_file(tmp_path / "x", error=DataError)


def test_a_name_that_is_no_text_is_read(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"\xff.csv")
    path.touch()
    assert readable_file(path, error=DataError) == path
    assert existing_path(str(path), error=DataError) == path


READERS: dict[str, Callable[[str], object]] = {
    "a model": hessrank.load_model,
    "data": hessrank.load_data,
    "a policy": hessrank.Policy.read,
    "a run file": read_run,
    "a study": read_study,
    "latencies": lambda path: read_latency(path, Graph({}, ())),
    "a trained network": hessrank.load_trained,
    "a state": lambda path: load_state(nn.Linear(1, 1), path),  # type: ignore[arg-type]
    "code": lambda path: import_attribute(f"{path}.py:x", what="loss"),
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_every_reader_says_what_is_wrong(read: Callable[[str], object], strange: Path) -> None:
    for path in BAD:
        if os.path.isdir(path or "."):
            continue  # a folder may be data
        with pytest.raises(HessrankError) as caught:
            read(path)
        assert len(str(caught.value).splitlines()) == 1, path


COMMANDS = {
    "rank": ["rank", "{}", "--data", "random"],
    "rank --data": ["rank", "m.pth", "--arch", "net.py:make", "--data", "{}"],
    "rank --arch": ["rank", "m.pth", "--arch", "{}.py:make", "--data", "random", "--input-shape", "2"],
    "check": ["check", "{}", "m.pth"],
    "verify": ["verify", "m.pth", "{}"],
    "export": ["export", "{}", "--out", "o.onnx"],
    "train": ["train", "{}"],
    "study": ["study", "{}"],
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_every_command_ends_with_one_line(command: list[str], strange: Path, capsys) -> None:
    torch.save(nn.Linear(2, 2).state_dict(), "m.pth")
    Path("net.py").write_text("from torch import nn\ndef make(): return nn.Linear(2, 2)\n")
    for path in BAD:
        assert main([part.replace("{}", path) for part in command]) == 2, path
        lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("reads ")]
        assert len(lines) == 1, (path, lines)
        assert lines[0].startswith("error: ")


STRANGE_IMAGES = {
    "a pipe": (os.mkfifo, "this is not a regular file"),
    "a link to nothing": (lambda path: os.symlink("nothing", path), "this is a link to what is not there"),
}


@pytest.mark.parametrize(("make", "message"), STRANGE_IMAGES.values(), ids=STRANGE_IMAGES)
def test_what_is_called_like_an_image_is_one(make: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    make(tmp_path / "b.png")
    with pytest.raises(DataError, match=rf"b\.png: {message}"):
        hessrank.load_data(tmp_path)


def test_a_folder_called_like_an_image_is_a_folder(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "b.png").mkdir()
    assert hessrank.load_data(tmp_path).description["files"] == ["a.png"]


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "model.safetensors.index.json"])
def test_a_pipe_in_a_folder_of_save_pretrained_is_not_waited_for(name: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    small = {"vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    transformers.BertModel(transformers.BertConfig(**small, intermediate_size=8)).save_pretrained(tmp_path)
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    if name.endswith("index.json"):  # an index is nothing that transformers needs
        assert hessrank.load_model(tmp_path).arch == "transformers:BertModel"
        return
    with pytest.raises(LoadError):
        hessrank.load_model(tmp_path)


BAD_ARGUMENTS = {
    "deep": ('{"a":' * 100_000, "nested too deeply"),
    "NaN": ('{"a": NaN}', "NaN is no number"),
    "Infinity": ('{"a": -Infinity}', "-Infinity is no number"),
    "beyond floats": ('{"a": 1e999}', "1e999 is no number"),
    "twice": ('{"a": 1, "a": 2}', "the key 'a' is there twice"),
    "digits": ('{"a": ' + "9" * 5000 + "}", "Exceeds the limit"),
    "a list": ("[1]", "write a JSON object"),
}


@pytest.mark.parametrize(("text", "message"), BAD_ARGUMENTS.values(), ids=BAD_ARGUMENTS)
def test_arguments_that_are_no_json_are_refused(text: str, message: str, capsys) -> None:
    assert main(["rank", "m.pth", "--arch-args", text]) == 2
    line = capsys.readouterr().err
    assert message in line
    assert len(line) < 500


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("could not create a primitive"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:119] err == 0. DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("std::bad_alloc"),
        RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        torch.OutOfMemoryError("much"),
    ],
    ids=repr,
)
def test_a_lack_of_memory_is_known_by_each_library_s_word_for_it(error: Exception) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("could not create a primitive descriptor for a convolution"),
        ValueError("no"),
        OptionError("out of memory"),
        OSError(errno.ENOENT, "none"),
    ],
    ids=repr,
)
def test_other_errors_are_no_lack_of_memory(error: Exception) -> None:
    assert not is_out_of_memory(error)


def test_a_missing_temporary_folder_is_said(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with (
        pytest.raises(OutputError, match=r"^there is no folder for temporary files: .*gone.*TMPDIR"),
        temporary_folder(),
    ):
        pass
