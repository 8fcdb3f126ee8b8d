"""Whatever bytes a file holds, it is loaded or refused in one line; no other exception comes out."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from torch import nn

from hessrank.errors import LoadError
from hessrank.models import LoadedModel, load_model, save_checkpoint

STARTS = {
    "zip": b"PK\x03\x04",
    "legacy torch.save": bytes.fromhex("80028a0a6cfc9c46f9206aa850192e"),
    "safetensors": b"\x10\0\0\0\0\0\0\0{",
    "pickle": b"\x80\x02",
    "onnx": b"\x08\x0a\x12",
    "nothing": b"",
}
BOUNDED = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # each example writes the file anew
)


def linear() -> nn.Linear:
    return nn.Linear(3, 2)


def saved(held: object, **kwargs) -> bytes:
    buffer = io.BytesIO()
    torch.save(held, buffer, **kwargs)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[str, bytes]:
    """One good file of each format."""
    torch.manual_seed(0)
    model, path = linear(), tmp_path_factory.mktemp("whole") / "ours.pth"
    save_checkpoint(path, model, arch="mine:linear", arch_args={}, input_shape=(3,))
    return {
        "torch.save": saved(model.state_dict()),
        "legacy torch.save": saved({"model": model.state_dict()}, _use_new_zipfile_serialization=False),
        "safetensors": save(dict(model.state_dict())),
        "ours": path.read_bytes(),
    }


def load_or_refuse(path: Path, content: bytes) -> LoadedModel | str:
    path.write_bytes(content)
    try:
        return load_model(path, arch=linear)
    except LoadError as error:
        message = str(error)
        assert message.startswith(str(path))
        assert message.isprintable()
        return message


@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS.keys())
@BOUNDED
@given(rest=st.binary(max_size=600))
@example(rest=b"")
@example(rest=b"\0")
def test_noise_is_refused(tmp_path, start, rest):
    assert isinstance(load_or_refuse(tmp_path / "m.pth", start + rest), str)


@pytest.mark.parametrize("kind", ["torch.save", "legacy torch.save", "safetensors", "ours"])
class TestDamage:
    def test_undamaged_it_loads(self, tmp_path, whole, kind):
        assert isinstance(load_or_refuse(tmp_path / "m.pth", whole[kind]), LoadedModel)

    @BOUNDED
    @given(data=st.data())
    def test_cut_short_it_is_refused(self, tmp_path, whole, kind, data):
        kept = data.draw(st.integers(0, len(whole[kind]) - 1))
        assert isinstance(load_or_refuse(tmp_path / "m.pth", whole[kind][:kept]), str)

    @BOUNDED
    @given(data=st.data())
    def test_overwritten_it_is_loaded_or_refused(self, tmp_path, whole, kind, data):
        content = bytearray(whole[kind])
        at = data.draw(st.integers(0, len(content) - 1))
        patch = data.draw(st.binary(min_size=1, max_size=8))
        content[at : at + len(patch)] = patch
        assert isinstance(load_or_refuse(tmp_path / "m.pth", bytes(content)), LoadedModel | str)


@BOUNDED
@given(name=st.text(max_size=40))
@example(name="a\nb")
@example(name="\x1b[31m")
@example(name="\ud800")
def test_any_key_makes_one_line(tmp_path, name):
    for held in ({name: torch.zeros(1)}, {name: {"unknown": torch.zeros(1)}}, {name: 1}):
        assert isinstance(load_or_refuse(tmp_path / "m.pth", saved(held)), str)
