"""Of a file that holds several sets of weights one is chosen by name; extra keys are left out by name, and told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from hessrank.cli import main
from hessrank.errors import LoadError, UnknownNameError
from hessrank.models import LoadedModel, load_model, save_checkpoint


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


def weights(scale: float) -> dict[str, Tensor]:
    """Return the network's weights, times a number that tells the sets apart."""
    return {name: value * scale for name, value in network().state_dict().items()}


def under(prefix: str, state: dict[str, Any]) -> dict[str, Any]:
    return {f"{prefix}.{name}": value for name, value in state.items()}


def average(scale: float) -> dict[str, Tensor]:
    model = network()
    model.load_state_dict(weights(scale))
    return AveragedModel(model).state_dict()


def scale_of(loaded: LoadedModel) -> float:
    return float((loaded.model.state_dict()["0.weight"] / network().state_dict()["0.weight"]).mean())


ONE, TWO = weights(1), weights(2)
FILES: dict[str, tuple[dict[str, Any], str, str]] = {
    "entries": ({"model": ONE, "ema": TWO, "epoch": 3}, "ema", "ema"),
    "timm": (
        {"state_dict": ONE, "state_dict_ema": TWO, "optimizer": {"state": {}}},
        "state_dict_ema",
        "state_dict_ema",
    ),
    "averaged": ({"model": ONE, "model_ema": average(2)}, "model_ema", "model_ema"),
    "ema_pytorch": (
        {"model": ONE, "ema": {**under("online_model", ONE), **under("ema_model", TWO), "step": torch.tensor(3)}},
        "ema_model",
        "ema.ema_model",
    ),
    "lightning": ({"state_dict": {**under("model", ONE), **under("teacher", TWO)}}, "teacher", "state_dict.teacher"),
    "lightning, whole name": (
        {"state_dict": {**under("model", ONE), **under("teacher", TWO)}},
        "state_dict.teacher",
        "state_dict.teacher",
    ),
    "lightning, parallel": (
        {"state_dict": {**under("model.module", ONE), **under("teacher.module", TWO)}},
        "teacher",
        "state_dict.teacher",
    ),
    "lightning, averaged": (
        {"state_dict": {**under("model", ONE), **under("ema", average(2))}},
        "ema",
        "state_dict.ema",
    ),
    "deeper": (
        {"state_dict": {**under("net.student", ONE), **under("net.teacher", TWO)}},
        "teacher",
        "state_dict.net.teacher",
    ),
    "bare": ({**under("student", ONE), **under("teacher", TWO)}, "teacher", "teacher"),
    "the usual one": ({"ema": ONE, "model": TWO}, "model", "model"),
}


@pytest.mark.parametrize(("held", "key", "name"), FILES.values(), ids=FILES)
def test_the_set_that_is_named_is_taken(held: dict[str, Any], key: str, name: str, tmp_path: Path) -> None:
    torch.save(held, tmp_path / "m.ckpt")
    loaded = load_model(tmp_path / "m.ckpt", arch=network, weights_key=key)
    assert scale_of(loaded) == pytest.approx(2)
    assert loaded.weights_key == name
    assert f"took the entry {name!r}" in loaded.notes[0]


def test_safetensors_have_sets_by_prefix(tmp_path: Path) -> None:
    save_file({**under("vision", ONE), **under("text", TWO)}, tmp_path / "m.safetensors")
    assert scale_of(load_model(tmp_path / "m.safetensors", arch=network, weights_key="text")) == pytest.approx(2)


def test_unsaid_the_first_that_fits_is_taken_and_the_others_told(tmp_path: Path) -> None:
    torch.save({"ema": TWO, "model": ONE}, tmp_path / "m.ckpt")
    loaded = load_model(tmp_path / "m.ckpt", arch=network)
    assert scale_of(loaded) == pytest.approx(1)
    assert loaded.notes == ("took the entry 'model' (the file also holds 'ema'; --weights-key chooses)",)


def test_unsaid_two_networks_in_one_state_dict_are_told_apart(tmp_path: Path) -> None:
    torch.save({"state_dict": {**under("model", ONE), **under("teacher", TWO)}}, tmp_path / "m.ckpt")
    with pytest.raises(
        LoadError, match=r"weights that fit are under 'state_dict.model', 'state_dict.teacher'"
    ) as told:
        load_model(tmp_path / "m.ckpt", arch=network)
    key = str(told.value).rpartition("--weights-key ")[2]
    assert scale_of(load_model(tmp_path / "m.ckpt", arch=network, weights_key=key)) == pytest.approx(1)


def test_an_unknown_name_lists_what_there_is_nearest_first(tmp_path: Path) -> None:
    torch.save({"state_dict": {**under("model", ONE), **under("teacher", TWO)}}, tmp_path / "m.ckpt")
    with pytest.raises(UnknownNameError, match=r"m\.ckpt named 'taecher'; nearest is 'state_dict.teacher'") as told:
        load_model(tmp_path / "m.ckpt", arch=network, weights_key="taecher")
    assert str(told.value).endswith("others: state_dict, state_dict.model")
    assert "0.weight" not in str(told.value)


def test_one_name_for_two_sets_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": under("model", ONE), "state_dict_ema": under("model", TWO)}, tmp_path / "m.ckpt")
    with pytest.raises(LoadError, match=r"several are called so: 'state_dict.model', 'state_dict_ema.model'"):
        load_model(tmp_path / "m.ckpt", arch=network, weights_key="model")
    loaded = load_model(tmp_path / "m.ckpt", arch=network, weights_key="state_dict_ema.model")
    assert scale_of(loaded) == pytest.approx(2)


def test_of_pickled_modules_too(tmp_path: Path) -> None:
    ema = network()
    ema.load_state_dict(TWO)
    torch.save({"model": network(), "ema": nn.DataParallel(ema)}, tmp_path / "m.pt")
    loaded = load_model(tmp_path / "m.pt", trust_pickle=True, weights_key="ema")
    assert scale_of(loaded) == pytest.approx(2)
    assert loaded.weights_key == "ema"
    with pytest.raises(UnknownNameError, match="nearest is 'ema'"):
        load_model(tmp_path / "m.pt", trust_pickle=True, weights_key="emma")


# ---------------------------------------------------------------------------------------------------- extra keys
EXTRA = {"pooler.dense.weight": torch.ones(2, 2), "pooler.dense.bias": torch.ones(2), "step": torch.ones(())}


@pytest.mark.parametrize("wrap", [dict, lambda state: under("module", state), lambda state: {"model": state}])
def test_extra_keys_are_left_out_by_name_and_told(wrap: Any, tmp_path: Path) -> None:
    torch.save(wrap({**TWO, **EXTRA}), tmp_path / "m.pth")
    loaded = load_model(tmp_path / "m.pth", arch=network, ignore_keys=["pooler.*", "st?p"])
    assert scale_of(loaded) == pytest.approx(2)
    assert {name.removeprefix("module.") for name in loaded.ignored_keys} == set(EXTRA)
    assert any("left out 3 of the file, which the network lacks: " in note for note in loaded.notes)


def test_the_error_names_the_patterns_that_help(tmp_path: Path) -> None:
    torch.save({**ONE, **EXTRA}, tmp_path / "m.pth")
    with pytest.raises(LoadError) as told:
        load_model(tmp_path / "m.pth", arch=network)
    assert "(--ignore-keys 'pooler.*' --ignore-keys step leave them out)" in str(told.value)


def test_deep_extra_keys_are_named_by_the_part_that_is_not_there(tmp_path: Path) -> None:
    torch.save(
        under("encoder", {**ONE, "0.norm.weight": torch.ones(2), "0.scale": torch.ones(2)}), tmp_path / "m.pth"
    )
    with pytest.raises(LoadError, match=r"--ignore-keys 'encoder.0.norm.\*' --ignore-keys encoder.0.scale leave"):
        load_model(tmp_path / "m.pth", arch=lambda: nn.ModuleDict({"encoder": network()}), ignore_keys="nothing")


@pytest.mark.parametrize("pattern", ["0.*", "*"])
def test_missing_keys_are_never_accepted(pattern: str, tmp_path: Path) -> None:
    torch.save({name: value for name, value in ONE.items() if name != "0.bias"}, tmp_path / "m.pth")
    with pytest.raises(LoadError, match=r"missing from the file: 0\.bias$"):
        load_model(tmp_path / "m.pth", arch=network, ignore_keys=[pattern])


def test_a_pattern_takes_nothing_that_the_network_has(tmp_path: Path) -> None:
    torch.save({**TWO, **EXTRA}, tmp_path / "m.pth")
    loaded = load_model(tmp_path / "m.pth", arch=network, ignore_keys=["*"])
    assert scale_of(loaded) == pytest.approx(2)
    assert set(loaded.ignored_keys) == set(EXTRA)


def test_a_pattern_without_effect_is_told(tmp_path: Path) -> None:
    torch.save(ONE, tmp_path / "m.pth")
    loaded = load_model(tmp_path / "m.pth", arch=network, ignore_keys=["poler.*"])
    assert loaded.notes == ("--ignore-keys 'poler.*': the file has no such key that the network lacks",)
    assert loaded.ignored_keys == ()


def test_the_entry_that_fits_without_them_is_taken(tmp_path: Path) -> None:
    torch.save({"model": {"other": torch.ones(1)}, "ema": {**TWO, **EXTRA}}, tmp_path / "m.pth")
    loaded = load_model(tmp_path / "m.pth", arch=network, ignore_keys=["pooler.*", "step"])
    assert loaded.weights_key == "ema"


def test_checkpoints_of_our_own_and_folders(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "own.pth", network(), arch="net", arch_args={}, input_shape=(3,))
    assert load_model(tmp_path / "own.pth", arch=network, weights_key="model").ignored_keys == ()
    with pytest.raises(UnknownNameError, match="nearest is 'model'"):
        load_model(tmp_path / "own.pth", arch=network, weights_key="ema")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "config.json").write_text("{}")
    for choice in ({"weights_key": "ema"}, {"ignore_keys": ["a"]}):
        with pytest.raises(LoadError, match="a folder of save_pretrained leaves no choice of weights"):
            load_model(tmp_path / "folder", **choice)


def test_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    Path("nets.py").write_text(
        "from torch import nn\ndef net(): return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))\n"
    )
    torch.save({"model": ONE, "ema": {**TWO, **EXTRA}}, "m.ckpt")
    common = ["--arch", "nets.py:net", "--data", "random", "--input-shape", "3"]
    chosen = [*common, "--weights-key", "ema", "--ignore-keys", "pooler.*", "--ignore-keys", "step"]
    assert main(["m.ckpt", *chosen, "--num-samples", "2", "--out", "r.csv"]) == 0
    assert "note: --ignore-keys: left out 3 of the file" in capsys.readouterr().err
    record = json.loads(Path("r.json").read_text())
    assert record["model"]["weights_key"] == "ema"
    assert record["model"]["ignored_keys"] == list(EXTRA)
    assert any("took the entry 'ema'" in warning for warning in record["warnings"])
    assert main(["policy", "r.csv", "--out", "p.yaml"]) == 0
    for command in (["verify", "m.ckpt", "r.csv"], ["check", "p.yaml", "m.ckpt"]):
        assert main([*command, *chosen]) == 0
        assert "note: --ignore-keys: left out 3 of the file" in " ".join(capsys.readouterr().err.split())
    assert main(["export", "m.ckpt", "--policy", "p.yaml", "--out", "m.onnx", *chosen]) == 0
    assert "note: --ignore-keys: left out 3 of the file" in capsys.readouterr().err
    assert main(["export", "m.ckpt", "--out", "m.onnx", *chosen]) == 2
    assert main(["m.ckpt", *common, "--weights-key", "emo"]) == 2
    assert "nearest is 'ema'" in capsys.readouterr().err
