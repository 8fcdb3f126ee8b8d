"""Folders that transformers' ``save_pretrained`` wrote."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.transformer_networks import bert, gpt2, tokens
from safetensors.torch import load_file, save_file
from torch import nn

from hessrank.errors import HessrankError, LoadError
from hessrank.models import load_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    bert().save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def test_the_network_comes_back(folder: Path) -> None:
    loaded = load_model(folder)
    assert (loaded.format, loaded.arch) == ("transformers", "transformers:BertForSequenceClassification")
    assert loaded.notes == ()
    assert not loaded.model.training
    expected = bert().state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in loaded.model.state_dict().items())
    assert {p.dtype for p in loaded.model.parameters()} == {torch.float64}  # as in the file
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(**tokens()).logits, bert()(**tokens()).logits)


def test_tied_weights_stay_tied(tmp_path: Path) -> None:
    gpt2().save_pretrained(tmp_path)
    model = load_model(tmp_path).model
    assert model.lm_head.weight is model.transformer.wte.weight


def test_nothing_is_said_and_no_random_number_drawn(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    state = torch.get_rng_state()
    load_model(folder)
    assert capfd.readouterr() == ("", "")
    assert torch.equal(torch.get_rng_state(), state)


def test_the_checksum_is_that_of_configuration_and_weights(folder: Path) -> None:
    first = load_model(folder).sha256
    assert load_model(folder).sha256 == first
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config))
    second = load_model(folder).sha256
    state = load_file(folder / "model.safetensors")
    save_file({name: value + 1 for name, value in state.items()}, folder / "model.safetensors", {"format": "pt"})
    assert len({first, second, load_model(folder).sha256}) == 3


def test_entries_of_the_configuration_can_be_replaced(folder: Path) -> None:
    model = load_model(folder, arch_args={"attn_implementation": "eager", "hidden_dropout_prob": 0.5}).model
    assert model.config._attn_implementation == "eager"
    assert model.bert.embeddings.dropout.p == 0.5


def test_weights_with_arch(folder: Path) -> None:
    """The file in the folder is a safetensors file like any other."""
    loaded = load_model(folder / "model.safetensors", arch="helpers.transformer_networks:bert")
    assert loaded.format == "safetensors"


def _config(change: Callable[[dict[str, object]], object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        change(config)
        (folder / "config.json").write_text(json.dumps(config))

    return apply


def _without(name: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        state = load_file(folder / "model.safetensors")
        del state[name]
        save_file(state, folder / "model.safetensors", {"format": "pt"})

    return apply


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "no weights": (
        lambda f: (f / "model.safetensors").unlink(),
        r"no \.safetensors in it; write it with model",
    ),
    "half the weights": (
        _without("classifier.weight"),
        "do not fit BertForSequenceClassification: missing cla",
    ),
    "cut short": (
        lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:1000]),
        "transformers cannot load it",
    ),
    "other sizes": (_config(lambda c: c.update(hidden_size=8)), "transformers cannot load it"),
    "no JSON": (lambda f: (f / "config.json").write_text("{"), r"config\.json: cannot be read as JSON"),
    "no architecture": (_config(lambda c: c.pop("architectures")), r"config\.json: it names no architectures"),
    "code of its own": (
        _config(lambda c: c.update(architectures=["Mine"], auto_map={"AutoModel": "mine.Mine"})),
        r"names 'Mine', which transformers .* does not have; give the \.safetensors in it with --arch",
    ),
    "no network": (
        _config(lambda c: c.update(architectures=["BertConfig"])),
        "names 'BertConfig', which",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_loaded_is_explained_in_one_line(folder: Path, case: str) -> None:
    spoil, message = BAD[case]
    spoil(folder)
    with pytest.raises(LoadError, match=message) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_the_code_in_a_folder_is_not_run(folder: Path) -> None:
    _config(lambda c: c.update(architectures=["Mine"], auto_map={"AutoModel": "mine.Mine"}))(folder)
    (folder / "mine.py").write_text("raise SystemExit('run')")
    with pytest.raises(LoadError):
        load_model(folder)


def test_more_weights_than_the_network_has_get_a_note(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    save_file({**state, "extra.weight": torch.ones(2)}, folder / "model.safetensors", {"format": "pt"})
    assert load_model(folder).notes == ("BertForSequenceClassification has no place for extra.weight: left out",)


def test_options_that_do_not_fit(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"names its own architecture; leave --arch out"):
        load_model(folder, arch=nn.Identity)
    with pytest.raises(LoadError, match=r"config\.json has no entry 'hidden_sze'"):
        load_model(folder, arch_args={"hidden_sze": 4})
    (tmp_path / "other").mkdir()
    with pytest.raises(HessrankError, match="this is a folder; give a file in it"):
        load_model(tmp_path / "other")


def test_without_transformers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(
        LoadError, match=r"a folder of transformers' save_pretrained: .*pip install 'transformers>=5\.24'$"
    ):
        load_model(folder)
