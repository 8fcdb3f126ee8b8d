"""No file runs code: a canary in every format and in every field that is text, read by every command that does."""

from __future__ import annotations

import copy
import json
import shutil
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.canaries import EVIL, PROJECT, Canary, Pickled, cage, poisoned, replaced
from PIL import EpsImagePlugin
from torch import nn

from hessrank.cli import main
from hessrank.distill.tasks.classification import DigitNet
from hessrank.distill.training.outputs.load_trained import FACTS, load_trained
from hessrank.models import load_model, save_checkpoint
from hessrank.models.architecture import import_ours

RUN = "task: nets.py:Sum\nepochs: 1\nthreads: 1\npictures: 0\n"
MODEL = ("--arch", "nets.py:net", "--data", "x.npy")
POLICY: dict[str, Any] = {
    "extra_qconfig_dict": {
        "w_qscheme": {"bit": 8, "symmetry": False, "per_channel": True, "pot_scale": False},
        "w_observer": "minmax",
        "a_observer": "minmax",
        "w_fakequantize": "fixed",
        "a_fakequantize": "fixed",
    },
    "extra_quantizer_dict": {
        "special_layer": {"0": {"weight": "4 per_channel_affine", "activation": "4"}},
        "exclude_module_name": ["2"],
        "exclude_node_name": ["2"],
    },
    "output_layer_list": ["0"],
    "distill_config": ["0"],
    "distill_coeff": [0.5],
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a network, its ranking, a policy, and a training's folder."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("nets.py").write_text(PROJECT)
        torch.manual_seed(0)
        torch.save(nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 1)).state_dict(), "net.pth")
        np.save("x.npy", np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32))
        assert main(["net.pth", *MODEL, "--out", "ranking.csv", "--bits", "4,8"]) == 0
        Path("policy.yaml").write_text(json.dumps(POLICY))
        Path("run.yaml").write_text(RUN + "load_model: net.pth\n")
        assert main(["train", "run.yaml", "--out", "run"]) == 0
        shutil.copy(next(Path("run").glob("last-*.ckpt")), "trained.ckpt")
    return folder


@pytest.fixture
def canary(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Canary:
    """The same folder as the current one, with the canary's code in it."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return cage(tmp_path, monkeypatch)


def _with_run(key: str) -> Callable[[], tuple[str, ...]]:
    def write() -> tuple[str, ...]:
        Path("again.yaml").write_text(
            RUN.replace("epochs: 1", "epochs: 0")
            + ("" if key.startswith("load_model") else "load_model: net.pth\n")
            + f"{key}\ndistill_config: ['0']\ndistill_coeff: [1.0]\n"
        )
        return "train", "again.yaml", "--out", "again"

    return write


def _study() -> tuple[str, ...]:
    Path("study.yaml").write_text(
        "base: {task: nets.py:Sum, epochs: 0, threads: 1, load_model: net.pth}\nseeds: [0]\nranking: ranking.csv\n"
        "policies: {hand: {file: policy.yaml}}\nexperiments: {hand: {policy: hand}}\n"
    )
    return "study", "study.yaml"


class TestTheCanaryItself:
    """It sings where the user names its code, so its silence elsewhere means something."""

    @pytest.mark.parametrize("evil", EVIL)
    def test_named_by_the_user(self, canary: Canary, evil: str) -> None:
        assert canary.sings("verify", "net.pth", "ranking.csv", *MODEL, "--loss", evil)
        assert not canary.sang

    def test_unpickled_by_the_users_leave(self, canary: Canary) -> None:
        torch.save(Pickled(), "evil.pth")
        assert canary.sings("evil.pth", *MODEL, "--trust-pickle")

    def test_without_it_the_commands_work(self, canary: Canary) -> None:
        commands = [*TestRankings.COMMANDS, *(TestPolicies.READERS[name]() for name in ("check", "study"))]
        assert [command for command in commands if main(command)] == []

    def test_what_is_poisoned(self) -> None:
        found = list(
            poisoned({"a": ["b", "c"], "d": {"x": {"e": "f"}, "y": {"e": "g"}}, "n": 1}, "!", frozenset("xy"))
        )
        assert [place for place, _ in found] == ["a/*", "d/*/e"]
        assert found[1][1] == {"a": ["b", "c"], "d": {"x": {"e": "!"}, "y": {"e": "g"}}, "n": 1}


class TestWeights:
    @pytest.mark.parametrize("ending", [".pth", ".ckpt", ".safetensors", ".pt2"])
    @pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
    def test_pickles(self, canary: Canary, ending: str, zipped: bool) -> None:
        held = {"state_dict": {"0.weight": Pickled()}, FACTS: Pickled(), "hessrank": 1, "arch": Pickled()}
        name = f"evil{ending}"
        torch.save(held, name, _use_new_zipfile_serialization=zipped)
        commands = [
            (name, *MODEL),
            ("net.pth", "--arch", "nets.py:net", "--data", name),
            ("export", name, "--out", "m.onnx"),
            ("export", "net.pth", *MODEL, "--policy", "policy.yaml", "--state", name, "--out", "m.onnx"),
            ("check", "policy.yaml", name, *MODEL),
        ]
        assert not [command for command in commands if canary.sings(*command)]
        for key in ("load_model", "load_quant_model", "load_teacher_model"):
            assert not canary.sings(*_with_run(f"{key}: {name}")()), key

    def test_exported_programs(self, canary: Canary) -> None:
        """As torch.export.save lays them out, with a pickle in place of every tensor."""
        torch.save(Pickled(), "pickle.pt")
        with zipfile.ZipFile("m.pt2", "w") as file:
            for name in (
                "archive_format",
                "models/model.json",
                "data/weights/weight_0",
                "data/sample_inputs/model.pt",
            ):
                file.writestr(f"m/{name}", "pt2" if name == "archive_format" else Path("pickle.pt").read_bytes())
        assert not canary.sings("m.pt2", "--data", "x.npy")

    @pytest.mark.parametrize("evil", EVIL)
    def test_architectures(self, canary: Canary, evil: str) -> None:
        """Of a checkpoint of ours: every text, also as an argument of each class of hessrank's that is a module."""
        save_checkpoint("a.pth", DigitNet(4), arch="hessrank.distill.tasks.classification:DigitNet",
                        arch_args={"width": 4}, input_shape=(1, 8, 8), metadata={"by": "me"})  # fmt: skip
        held = torch.load("a.pth", weights_only=True)
        for place, changed in poisoned(held, evil):
            torch.save(changed, "b.pth")
            assert not canary.sings("b.pth", "--data", "random", "--num-samples", "1"), place
        names = ("width", "classes", "channels")
        for arch_args in ({name: evil} for name in names):
            torch.save(held | {"arch_args": arch_args}, "b.pth")
            assert not canary.sings("b.pth", "--data", "random", "--num-samples", "1"), arch_args
        scheme = {"bits": 8}
        for arch in (
            "hessrank.quant.quantizers.fixed:Fixed",
            "hessrank.quant.quantizers.base:make_quantizer",
            "hessrank.quant.prepare.model:QuantizedModel",
            "hessrank.distill.tasks.given:MeanLoss",
            "hessrank.distill.tasks.given:GivenTask",
            "hessrank.distill.teacher.loss_registry:make_distillation_loss",
            "hessrank.analysis.losses:make_loss",
            "hessrank.distill.tasks.find:find_task",
        ):
            with pytest.raises(Exception, match="not a network of hessrank; if you trust it, repeat it: --arch"):
                import_ours(arch, source="b.pth")
            for arch_args in ({"loss": evil}, {"name": evil}, {"scheme": scheme, "method": evil, "observer": evil}):
                torch.save(held | {"arch": arch, "arch_args": arch_args}, "b.pth")
                assert not canary.sings("b.pth", "--data", "random"), (arch, arch_args)


@pytest.mark.parametrize("evil", EVIL)
def test_folders_of_save_pretrained(canary: Canary, evil: str) -> None:
    """Every entry of the configuration, those that transformers would import code for, and code in the folder."""
    from helpers.transformer_networks import bert

    bert().save_pretrained("saved")
    for name in ("evil_module.py", "evil.py"):
        shutil.copy(name, "saved")
    config = json.loads(Path("saved/config.json").read_text())
    place = evil.replace(".py:", ".").replace(":", ".")
    added: list[dict[str, Any]] = [
        {"auto_map": {"AutoConfig": place, "AutoModel": place, "AutoModelForSequenceClassification": place}},
        {"trust_remote_code": True, "auto_map": {"AutoConfig": place}, "model_type": "evil"},
        {"_target_": place, "_class_name": place, "custom_pipelines": {"f": {"impl": place}}},
        {"quantization_config": {"quant_method": evil, "modules_to_not_convert": [evil]}},
        {"_attn_implementation": evil, "attn_implementation": evil, "_attn_implementation_internal": evil},
        {"torch_dtype": evil, "dtype": evil},
        {"use_kernels": True, "kernel_config": {"f": evil}},
    ]
    changes = [*poisoned(config, evil), *((str(more), config | more) for more in added)]
    for where, changed in changes:
        Path("saved/config.json").write_text(json.dumps(changed))
        with suppress(Exception):
            load_model("saved")
        assert not canary.sang, where


class TestData:
    @pytest.mark.parametrize("name", ["x.npy", "x.npz"])
    def test_arrays_of_objects(self, canary: Canary, name: str) -> None:
        objects = np.array([Pickled()], dtype=object)
        if name == "x.npy":
            np.save(name, objects, allow_pickle=True)
        else:
            np.savez(name, allow_pickle=True, inputs=objects)
        held: Any = np.load(name, allow_pickle=True)
        _ = held if name == "x.npy" else held["inputs"]
        assert canary.sang
        assert not canary.sings("net.pth", "--arch", "nets.py:net", "--data", name)

    def test_pictures_that_are_programs(self, canary: Canary, monkeypatch: pytest.MonkeyPatch) -> None:
        """Pillow hands PostScript to Ghostscript, whatever the file is called."""
        program = canary.folder / "bin" / "gs"
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\ntouch {canary.folder}/mark\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(program.parent), prepend=":")
        monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
        Path("pictures").mkdir()
        script = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
        Path("pictures/a.png").write_text(script)
        assert not canary.sings("net.pth", "--arch", "nets.py:net", "--data", "pictures")

    def test_raw_files(self, canary: Canary) -> None:
        Path("raw").mkdir()
        torch.save(Pickled(), "raw/a.dng")
        assert not canary.sings("net.pth", "--arch", "nets.py:net", "--data", "raw")


class TestRankings:
    COMMANDS = (
        ("show", "ranking.csv"),
        ("compare", "ranking.csv", "ranking.csv"),
        ("policy", "ranking.csv", "--dry-run", "--high-bits", "8", "--base-bits", "4"),
        ("verify", "net.pth", "ranking.csv", *MODEL, "--bits", "4", "--layer", "0", "--no-weights"),
    )

    @pytest.mark.parametrize("name", ["policy", "verify"])
    def test_every_text_of_the_record(self, canary: Canary, name: str) -> None:
        (command,) = (command for command in self.COMMANDS if command[0] == name)
        record = json.loads(Path("ranking.json").read_text())
        layers = frozenset(record["graph"]["layers"])
        for number, (place, changed) in enumerate(poisoned(record, "?", layers)):
            evil = EVIL if place == "loss" else EVIL[number % 2 :][:1]
            for text in evil:
                Path("ranking.json").write_text(json.dumps(replaced(changed, "?", text)))
                assert not canary.sings(*command), (place, text)

    @pytest.mark.parametrize("evil", [*EVIL, '=HYPERLINK("evil.py")'])
    def test_every_text_of_the_table(self, canary: Canary, evil: str) -> None:
        frame = pd.read_csv("ranking.csv", dtype=str)
        for column in ("layer", "estimator"):
            frame.assign(**{column: evil}).to_csv("ranking.csv", index=False)
            assert not [command for command in self.COMMANDS if canary.sings(*command)], column

    @pytest.mark.parametrize("evil", EVIL)
    def test_every_text_of_the_record_at_once(self, canary: Canary, evil: str) -> None:
        record = json.loads(Path("ranking.json").read_text())
        Path("ranking.json").write_text(json.dumps(replaced(record, None, evil)))
        assert not canary.sings("show", "ranking.csv")
        assert not canary.sings("compare", "ranking.csv", "ranking.csv")

    @pytest.mark.parametrize("evil", EVIL)
    def test_what_is_kept_of_an_interrupted_one(self, canary: Canary, evil: str) -> None:
        resume = ("net.pth", *MODEL, "--out", "new.csv", "--resume")
        np.savez("partial", allow_pickle=True, facts=np.array([Pickled()], dtype=object))
        shutil.move("partial.npz", "new.csv.partial")
        assert not canary.sings(*resume)
        facts = {"format": evil, "key": {"loss": evil, "estimator": evil}, "sections": {evil: {"estimator": evil}}}
        np.savez("partial", facts=np.array(json.dumps(facts)))
        shutil.move("partial.npz", "new.csv.partial")
        assert not canary.sings(*resume)


class TestPolicies:
    READERS: ClassVar[dict[str, Callable[[], tuple[str, ...]]]] = {
        "check": lambda: ("check", "policy.yaml", "net.pth", *MODEL),
        "export": lambda: ("export", "net.pth", *MODEL, "--policy", "policy.yaml", "--out", "m.onnx"),
        "config_file_path": _with_run("config_file_path: policy.yaml"),
        "teacher_policy": _with_run("quant_teacher: true\nteacher_policy: policy.yaml"),
        "study": _study,
    }

    @pytest.mark.parametrize("reader", READERS)
    def test_code_in_place_of_a_method_or_an_observer(
        self, canary: Canary, reader: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        command = self.READERS[reader]()
        config = POLICY["extra_qconfig_dict"]
        for key in [key for key, value in config.items() if isinstance(value, str)]:
            for evil in EVIL:
                Path("policy.yaml").write_text(json.dumps({"extra_qconfig_dict": {**config, key: evil}}))
                assert not canary.sings(*command), (key, evil)
                told = capsys.readouterr().err.splitlines()[-1]
                assert f"{key}: no code is imported on a file's word: if you trust {evil}, add " in told

    @pytest.mark.parametrize("evil", EVIL)
    def test_every_other_text(self, canary: Canary, evil: str) -> None:
        config = {key: value for key, value in POLICY["extra_qconfig_dict"].items() if not isinstance(value, str)}
        for place, changed in poisoned({**POLICY, "extra_qconfig_dict": config}, evil):
            Path("policy.yaml").write_text(json.dumps(changed))
            assert not canary.sings(*self.READERS["check"]()), place
        for tag in ("!!python/object/apply:evil_module.f []", "!!python/name:evil_module.f ''", "!evil f"):
            Path("policy.yaml").write_text(f"extra_qconfig_dict: {tag}\n")
            assert not canary.sings(*self.READERS["check"]()), tag


class TestTrainings:
    def test_code_in_the_policy_of_a_checkpoint(self, canary: Canary, capsys: pytest.CaptureFixture[str]) -> None:
        held = torch.load("trained.ckpt", weights_only=True)
        commands: dict[str, tuple[str, ...]] = {
            "export": ("export", "evil.ckpt", "--arch", "nets.py:net", "--out", "m.onnx"),
            "export, task": ("export", "evil.ckpt", "--task", "nets.py:Sum", "--out", "m.onnx"),
            "export, nothing": ("export", "evil.ckpt", "--out", "m.onnx"),
            "rank": ("evil.ckpt", *MODEL),
        }
        for key in ("load_model", "load_quant_model", "load_teacher_model"):
            command = _with_run(f"{key}: evil.ckpt")()
            shutil.move("again.yaml", f"{key}.yaml")
            commands[key] = (command[0], f"{key}.yaml", *command[2:])
        for number, key in enumerate(("w_fakequantize", "w_observer", "a_fakequantize", "a_observer")):
            changed = copy.deepcopy(held)
            changed[FACTS]["policy"] = f"extra_qconfig_dict: {{{key}: {EVIL[number % 2]}}}\n"
            torch.save(changed, "evil.ckpt")
            for name, command in commands.items():
                capsys.readouterr()
                assert not canary.sings(*command), (key, name)
                if name.startswith("export"):
                    told = capsys.readouterr().err
                    assert f"evil.ckpt:1:{24 + len(key)}: {key}: no code is imported on a file's word" in told

    def test_every_other_text_of_a_checkpoint(self, canary: Canary) -> None:
        held = torch.load("trained.ckpt", weights_only=True)
        readers: tuple[Callable[[], object], ...] = (
            lambda: load_trained("evil.ckpt"),
            lambda: load_trained("evil.ckpt", task="nets.py:Sum"),
            lambda: load_trained("evil.ckpt", arch="nets.py:net"),
            lambda: load_model("evil.ckpt"),
            lambda: load_model("evil.ckpt", arch="nets.py:net"),
        )
        tensors = frozenset(held[FACTS]["bits"])
        for number, (place, facts) in enumerate(poisoned(held[FACTS], "?", tensors)):
            torch.save({**held, FACTS: replaced(facts, "?", EVIL[number % 2])}, "evil.ckpt")
            for reader in readers:
                with suppress(Exception):
                    reader()
                assert not canary.sang, place

    @pytest.mark.parametrize("evil", EVIL)
    def test_folders(self, canary: Canary, evil: str) -> None:
        """Of a run, on --resume and when a study finds it finished: every text of every file in it."""
        study = _study()
        assert main(study) == 0
        for command in (study, ("train", "run.yaml", "--out", "run", "--resume", "--epochs", "2")):
            for path in [*Path("studies").rglob("*.json"), *Path("run").rglob("*.json")]:
                path.write_text(json.dumps(replaced(json.loads(path.read_text()), None, evil)))
            for path in [*Path("studies").rglob("*.csv"), *Path("run").rglob("*.csv")]:
                pd.read_csv(path, dtype=str).map(lambda _: evil).to_csv(path, index=False)
            assert not canary.sings(*command)
        (last,) = Path("run").glob("last-*.ckpt")
        held = torch.load(last, weights_only=True)
        torch.save({**held, FACTS: replaced(held[FACTS], None, evil)}, last)
        assert not canary.sings(*command)
