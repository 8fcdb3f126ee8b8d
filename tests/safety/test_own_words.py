"""What the user says himself is done: the code that a file may not name alone works with his own word for it."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.canaries import PROJECT, Pickled
from torch import nn

from hessrank import Policy, Ranking, load_data, load_model, load_trained, verify
from hessrank.cli import main
from hessrank.distill.run_file import read_run
from hessrank.distill.study import read_study
from hessrank.distill.study.run import run_study
from hessrank.distill.training.from_run_file import start
from hessrank.errors import HessrankError, OptionError
from hessrank.plugins import Registry
from hessrank.quant.policy import PolicyError
from hessrank.quant.quantizers import Quantizer

CODE = (
    PROJECT
    + """
from hessrank.quant.quantizers.fixed import Fixed
from hessrank.quant.quantizers.observers import MinMax

class Mine(Fixed):
    pass

class Watch(MinMax):
    pass

def loss(output, target):
    return (output ** 4).sum(1)
"""
)
RUN = "task: code/mine.py:Sum\nload_model: net.pth\nepochs: 1\nthreads: 1\npictures: 0\n"
HINT = "distill_config: ['0']\ndistill_coeff: [1.0]\n"
POLICY = "extra_qconfig_dict:\n  w_fakequantize: code/mine.py:Mine\n  a_observer: code/mine.py:Watch\n"
MODEL = ("--arch", "code/mine.py:net", "--data", "x.npy")
PLUGINS = "plugins: ['code/mine.py:Mine', 'code/mine.py:Watch']\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a network, a policy and a trained network that name code in another folder."""
    folder = tmp_path_factory.mktemp("own")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("code").mkdir()
        Path("code/mine.py").write_text(CODE)
        torch.manual_seed(0)
        torch.save(nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 1)).state_dict(), "net.pth")
        np.save("x.npy", np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32))
        Path("policy.yaml").write_text(POLICY)
        Path("run.yaml").write_text(RUN + POLICY)
        assert main(["train", "run.yaml", "--out", "run"]) == 0
        shutil.copy(next(Path("run").glob("last-*.ckpt")), "trained.ckpt")
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def quantizers(model: nn.Module) -> set[str]:
    return {type(module).__name__ for module in model.modules() if isinstance(module, Quantizer)}


def followed(command: list[str], capsys: pytest.CaptureFixture[str], words: str) -> int:
    """Do what an error asks for, until there is none; return how often."""
    for count in range(4):
        capsys.readouterr()
        if main(command) != 2:
            return count
        error = capsys.readouterr().err.splitlines()[-1]
        assert "no code is imported on a file's word" in error
        added = re.search(rf"add ({words}) ", error)
        assert added, error
        command = [*command, *shlex.split(added[1])]
    raise AssertionError(error)


class TestPlugins:
    @pytest.mark.parametrize("where", [".", "code", "run"])
    def test_the_message_works_as_printed(
        self, folder: Path, where: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """From wherever one is, once for each of the two names."""
        Path("code/policy.yaml").write_text(POLICY.replace("code/", ""))
        monkeypatch.chdir(where)
        up = "" if where == "." else "../"
        model = [f"{up}net.pth", "--arch", f"{up}code/mine.py:net", "--data", f"{up}x.npy"]
        assert followed(["check", f"{up}code/policy.yaml", *model], capsys, r"--plugin \S+") == 2

    def test_what_is_exported(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        by_policy = ["export", "net.pth", *MODEL, "--policy", "policy.yaml", "--out", "m.onnx"]
        assert followed(by_policy, capsys, r"--plugin \S+") == 2
        trained = ["export", "trained.ckpt", "--arch", "code/mine.py:net", "--out", "m.onnx"]
        assert followed(trained, capsys, r"--plugin \S+") == 2

    def test_python(self, folder: Path) -> None:
        plugins = ["code/mine.py:Mine", "code/mine.py:Watch"]
        policy = Policy.read("policy.yaml", plugins=plugins)
        assert (policy.weight_method, policy.activation_observer) == tuple(plugins)
        told = {"w_fakequantize": "code/mine.py:Mine", "a_observer": "code/mine.py:Watch"}
        assert policy == Policy.of({"extra_qconfig_dict": told})
        assert quantizers(load_trained("trained.ckpt", arch="code/mine.py:net", plugins=plugins)) == {"Mine", "Fixed"}
        with pytest.raises(PolicyError, match=r"^policy.yaml:3:15: a_observer: no code .* --plugin \S+:Watch "):
            Policy.read("policy.yaml", plugins="code/mine.py:Mine")

    def test_of_several_files_the_one_with_most_folders_alike(self, tmp_path: Path) -> None:
        path = tmp_path / "policy.yaml"
        path.write_text("extra_qconfig_dict: {w_fakequantize: b/c/q.py:Mine}\n")
        for plugins in (["a/q.py:Mine", "x/b/c/q.py:Mine"], ["x/b/c/q.py:Mine", "a/c/q.py:Mine"]):
            assert Policy.read(path, plugins=plugins).weight_method == "x/b/c/q.py:Mine"
        for others in ("b/c/q.py:Other", "b/c/other.py:Mine", "b.c.q:Mine"):
            with pytest.raises(PolicyError, match="no code is imported"):
                Policy.read(path, plugins=[others])

    def test_what_is_no_name_of_code(self, tmp_path: Path) -> None:
        (tmp_path / "policy.yaml").write_text(POLICY)
        with pytest.raises(OptionError, match=r"plugin 'mine.py': write pkg.module:name or file.py:name"):
            Policy.read(tmp_path / "policy.yaml", plugins=["mine.py"])
        (tmp_path / "run.yaml").write_text("plugins: [mine.py]\n")
        with pytest.raises(PolicyError, match=r"run.yaml:1:11: plugins: plugin 'mine.py': write"):
            read_run(tmp_path / "run.yaml")


class TestRunFiles:
    @pytest.mark.parametrize(
        "keys",
        [
            "config_file_path: policy.yaml\n",
            "quant_teacher: true\nteacher_policy: policy.yaml\n" + HINT,
            "load_quant_model: trained.ckpt\n",
            "load_teacher_model: trained.ckpt\n" + HINT,
        ],
        ids=["config_file_path", "teacher_policy", "load_quant_model", "load_teacher_model"],
    )
    def test_its_list_allows_what_other_files_name(
        self, folder: Path, keys: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The list counts from the run file's folder, as the message says, wherever one is."""
        monkeypatch.chdir("code")
        run = folder / "again.yaml"
        run.write_text(RUN.replace("epochs: 1", "epochs: 0") + keys)
        assert main(["train", "../again.yaml"]) == 2
        error = capsys.readouterr().err
        assert "no code is imported on a file's word" in error
        assert re.search(r"add plugins: \['code/mine.py:(Mine|Watch)'\] to ../again.yaml$", error.strip())
        run.write_text(run.read_text() + PLUGINS)
        assert main(["train", "../again.yaml"]) == 0

    def test_its_own_words_are_the_users(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Found from its folder, as its task is; a training goes on from another folder."""
        Path("again.yaml").write_text(RUN + POLICY)
        assert quantizers(start(read_run("again.yaml"), say=lambda _: None).model) == {"Mine", "Fixed"}
        monkeypatch.chdir("code")
        assert main(["train", "../again.yaml", "--resume", "--epochs", "2"]) == 0

    def test_its_own_words_do_not_allow_another_file_more(self, folder: Path) -> None:
        Path("again.yaml").write_text(RUN + POLICY + "quant_teacher: true\nteacher_policy: policy.yaml\n" + HINT)
        run = read_run("again.yaml")
        assert run.policy.weight_method == "code/mine.py:Mine"
        with pytest.raises(HessrankError, match="no code is imported"):
            Policy.read("policy.yaml", plugins=run.plugins)

    def test_a_study(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        text = (
            "base: {task: 'code/mine.py:Sum', epochs: 0, threads: 1, load_model: net.pth}\nseeds: [0]\n"
            "ranking_samples: 2\npolicies: {hand: {file: policy.yaml, base_bits: 4}}\n"
            "experiments: {hand: {policy: hand}}\n"
        )
        Path("study.yaml").write_text(text)
        assert main(["study", "study.yaml"]) == 2
        assert "add plugins: ['code/mine.py:Mine'] to study.yaml" in capsys.readouterr().err
        Path("study.yaml").write_text(text + PLUGINS)
        assert main(["study", "study.yaml"]) == 0
        Path("study.yaml").write_text(text.replace("{hand: {policy", "{hand: {plugins: ['a:b'], policy"))
        with pytest.raises(PolicyError, match="plugins has no place in a study: plugins are the study's"):
            read_study("study.yaml")


class TestTrust:
    @pytest.fixture
    def pickled(self, folder: Path) -> None:
        """The network as a pickle that calls something else too."""
        torch.save({"model": torch.load("net.pth", weights_only=True), "canary": Pickled()}, "net.pth")

    @pytest.mark.usefixtures("pickled")
    def test_a_run_file_alone_cannot_trust(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        Path("again.yaml").write_text(RUN + "quant: false\ntrust_pickle: true\n")
        assert main(["train", "again.yaml"]) == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.startswith("error: again.yaml:7:15: trust_pickle: a file alone cannot allow pickles to run code")
        assert "add --trust-pickle (trust_pickle=True in Python)" in error
        assert not Path("mark").exists()
        assert main(["train", "again.yaml", "--trust-pickle"]) == 0
        assert Path("mark").exists()
        start(read_run("again.yaml"), trust_pickle=True, out=Path("python"), say=lambda _: None)

    @pytest.mark.usefixtures("pickled")
    def test_a_study_alone_cannot_either(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        Path("study.yaml").write_text(
            "base:\n  task: code/mine.py:Sum\n  load_model: net.pth\n  trust_pickle: true\n  epochs: 0\n"
            "  threads: 1\n  quant: false\nranking_samples: 2\nseeds: [0]\nexperiments: {a: {}}\n"
        )
        assert main(["study", "study.yaml"]) == 2
        assert "study.yaml:4:17: trust_pickle: a file alone cannot" in capsys.readouterr().err
        assert not Path("mark").exists()
        assert len(run_study(read_study("study.yaml"), trust_pickle=True, say=lambda _: None)) == 1
        assert main(["study", "study.yaml", "--trust-pickle"]) == 0


class TestLosses:
    def test_verify_asks_for_the_loss(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        x = np.load("x.npy")
        np.savez("labeled.npz", inputs=x, targets=x[:, :1])
        model = ("net.pth", "--arch", "code/mine.py:net", "--data", "labeled.npz")
        assert main([*model, "--loss", "code/mine.py:loss", "--out", "r.csv", "--bits", "4"]) == 0
        assert json.loads(Path("r.json").read_text())["loss"] == "code/mine.py:loss"
        command = ["verify", model[0], "r.csv", *model[1:]]
        assert main(command) == 2
        told = capsys.readouterr().err.splitlines()[-1]
        assert told.startswith("error: r.json names a loss of your own, 'code/mine.py:loss'; no code is imported on")
        assert followed(command, capsys, r"--loss \S+") == 1
        network, data = load_model("net.pth", arch="code/mine.py:net").model, load_data("labeled.npz")
        with pytest.raises(OptionError, match="the ranking's record names a loss of your own"):
            verify(network, data, Ranking.read("r.csv"))
        assert len(verify(network, data, Ranking.read("r.csv"), loss="code/mine.py:loss").to_frame())


def test_a_registry_imports_for_the_user_only() -> None:
    registry: Registry[object] = Registry("thing")
    registry.register("one")(1)
    assert registry.resolve("one") == registry.resolve_or_import("one") == 1
    assert registry.resolve_or_import("math:pi") == pytest.approx(3.14159, abs=1e-5)
    with pytest.raises(HessrankError, match="no thing named 'math:pi'; nearest is 'one'"):
        registry.resolve("math:pi")
