"""Run files started for real: the first user's own, classification, one's own task; and every mistake in them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from helpers.places import ROOT
from helpers.processes import interrupted
from helpers.training_networks import FOUR_BITS, HINTED, Net, trained
from PIL import Image

from hessrank.cli import main
from hessrank.distill.run_file import read_run
from hessrank.distill.tasks.classification import DigitNet
from hessrank.distill.tasks.lowlight import LowLight
from hessrank.distill.training.from_run_file import plan_run, start
from hessrank.distill.training.outputs.load_trained import load_trained
from hessrank.errors import LoadError, OptionError
from hessrank.models import load_model
from hessrank.plugins import import_attribute
from hessrank.quant.policy import Policy
from hessrank.quant.prepare import QuantizedModel

FIRST_USER = ROOT / "tests" / "quant" / "policy" / "first_user_run.yaml"
DIGITS = """
task: classification
epochs: 2
batch_size: 64
learning_rate: 1e-3
calibration_samples: 64
threads: 1
task_args: {samples: 256}
extra_qconfig_dict: {w_qscheme: {bit: 4}, a_qscheme: {bit: 4}}
"""


def run(folder: Path, text: str, *arguments: str) -> int:
    (folder / "run.yaml").write_text(text)
    return main(["train", str(folder / "run.yaml"), *arguments])


@pytest.fixture
def first_user(tmp_path: Path) -> Path:
    """The first user's folder: the run file as it is, the published network's weights, a configuration."""
    shutil.copy(FIRST_USER, tmp_path / "run.yaml")
    for name in ("onnx", "configfile"):
        (tmp_path / name).mkdir()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save({"model": LowLight().state_dict()}, tmp_path / "onnx" / "SID_weights_690000.pth")
    (tmp_path / "configfile" / "aba_config.yaml").write_text("extra_qconfig_dict: {a_qscheme: {bit: 8}}\n")
    return tmp_path / "run.yaml"


class TestTheFirstUsersFile:
    def test_it_puts_together_what_it_says(self, first_user: Path) -> None:
        job = plan_run(read_run(first_user), first_user.parent / "out")
        student = job.networks.student
        assert isinstance(student, QuantizedModel)
        table = student.table().set_index(["layer", "tensor"])["bits"]
        assert table["DBF.DBF_conv1.Conv1", "weight"] == table["raw", "input"] == 10
        assert table["DBF.DBF_conv3.Conv1", "weight"] == 8
        assert job.distillation is not None
        assert [(hint.layer, hint.coefficient, hint.loss) for hint in job.distillation.hints] == [
            ("DBLE.dual_conv9.lrelu_dup1", 0.7, "mse"),
            ("DBF.DBF_conv9.lrelu_dup1", 0.7, "mse"),
        ]
        assert any("load_model" in note and "all 130 keys loaded, none left over" in note for note in job.notes)
        assert sum("does nothing: LeakyReLU has none" in note for note in job.notes) == 5

    def test_it_runs_unchanged(
        self, first_user: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One step of it, on the smallest data there is: the file says nothing of either."""
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        (first_user.parent / "more.yaml").write_text(
            first_user.read_text() + "task_args: {samples: 6, patch: 32}\npictures: 0\ncalibration_samples: 2\n"
        )
        assert main(["train", str(first_user.parent / "more.yaml"), "--epochs", "1"]) == 0
        told = capsys.readouterr()
        assert "gpu_id 3: there is no GPU here: the CPU is taken" in told.err
        assert "quantized, epoch 1" in told.out
        names = {path.name for path in (first_user.parent / "runs" / "more").iterdir()}
        assert {"last-epoch0001.ckpt", "best-epoch0001.ckpt", "metrics.csv", "result.json", "curves.png"} <= names


@pytest.fixture(scope="module")
def trained_in_float(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("float")
    text = "task: classification\nquant: false\nepochs: 4\nbatch_size: 32\nlearning_rate: 1e-2\nthreads: 1\n"
    assert run(folder, text) == 0
    return folder / "runs" / "run"


class TestDigits:
    """From random weights in float, through four bits with a teacher, to ONNX."""

    def test_float_from_random_weights(self, trained_in_float: Path) -> None:
        metrics = pd.read_csv(trained_in_float / "metrics.csv")
        assert metrics["val/top1"].iloc[-1] > 60
        notes = json.loads((trained_in_float / "start.json").read_text())["notes"]
        assert "no load_model: the network starts from random weights" in notes

    def test_a_float_checkpoint_loads_as_any(self, trained_in_float: Path) -> None:
        (best,) = trained_in_float.glob("best-*.ckpt")
        found = load_model(best)
        assert isinstance(found.model, DigitNet)
        assert found.input_shape == (1, 8, 8)
        assert found.inputs is not None

    def test_a_float_checkpoint_knows_its_width(self, tmp_path: Path) -> None:
        text = DIGITS.replace("epochs: 2", "epochs: 1") + "quant: false\narch_args: {width: 4}\n"
        assert run(tmp_path, text) == 0
        (best,) = (tmp_path / "runs" / "run").glob("best-*.ckpt")
        (tmp_path / "next").mkdir()
        assert run(tmp_path / "next", DIGITS + f"load_model: {best}\n", "--epochs", "0") == 0

    def test_quantized_distilled_and_exported(
        self, trained_in_float: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (best,) = trained_in_float.glob("best-*.ckpt")
        layers = [name for name, _ in DigitNet().named_modules() if name][-1:]
        text = DIGITS + f"load_model: {best}\nonnx: true\ndistill_config: [{layers[0]}]\ndistill_coeff: [0.5]\n"
        assert run(tmp_path, text + "distill_loss: logits-kl\npictures: 3\n") == 0
        folder = tmp_path / "runs" / "run"
        assert {"model.onnx", "curves.png"} <= {path.name for path in folder.iterdir()}
        with Image.open(folder / "pictures" / "epoch0002.png") as picture:
            assert picture.size[0] > 300
        assert "onnxruntime" in capsys.readouterr().err
        record = json.loads((folder / "result.json").read_text())
        (best,) = folder.glob("best-*.ckpt")
        model = load_trained(best)
        assert isinstance(model, QuantizedModel)
        assert record["before"]["float"]["top1"] == pytest.approx(record["before"]["teacher"]["top1"])
        capsys.readouterr()
        assert main(["export", str(best), "--out", str(tmp_path / "again.onnx")]) == 0
        assert (tmp_path / "again.onnx").read_bytes() == (folder / "model.onnx").read_bytes()

    def test_only_judged(self, trained_in_float: Path, tmp_path: Path) -> None:
        (best,) = trained_in_float.glob("best-*.ckpt")
        assert run(tmp_path, DIGITS + f"load_model: {best}\ntest: true\n") == 0
        folder = tmp_path / "runs" / "run"
        assert [path.name for path in folder.iterdir()] == ["test.json"]
        before = json.loads((folder / "test.json").read_text())["before"]
        expected = pd.read_csv(trained_in_float / "metrics.csv")["val/top1"].max()
        assert before["float"]["top1"] == pytest.approx(expected)

    def test_a_trained_state_is_judged_and_exported(self, trained_in_float: Path, tmp_path: Path) -> None:
        (best,) = trained_in_float.glob("best-*.ckpt")
        assert run(tmp_path, DIGITS + f"load_model: {best}\n", "--epochs", "1") == 0
        (tmp_path / "next").mkdir()
        (state,) = (tmp_path / "runs" / "run").glob("best-*.ckpt")
        text = DIGITS + f"load_model: {best}\nload_quant_model: {state}\ntest: true\nonnx: true\n"
        assert run(tmp_path / "next", text) == 0
        told = json.loads((tmp_path / "next" / "runs" / "run" / "test.json").read_text())
        trained = json.loads((tmp_path / "runs" / "run" / "result.json").read_text())
        assert told["before"]["quantized"] == pytest.approx(trained["best"])
        assert (tmp_path / "next" / "runs" / "run" / "model.onnx").exists()

    def test_a_checkpoint_brings_its_policy(
        self, trained_in_float: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """With or without its float network; under either key; and not if the file has a policy of its own."""
        (best,) = trained_in_float.glob("best-*.ckpt")
        policy = (
            "extra_quantizer_dict: {special_layer: {input_layer: 8}}\ndistill_config: [add]\ndistill_coeff: [1]\n"
        )
        assert run(tmp_path, DIGITS + policy + f"load_model: {best}\n", "--epochs", "1") == 0
        (state,) = (tmp_path / "runs" / "run").glob("best-*.ckpt")
        trained = json.loads((tmp_path / "runs" / "run" / "result.json").read_text())
        bare = "task: classification\nthreads: 1\ntest: true\n"
        texts = {
            "beside": (f"load_model: {best}\nload_quant_model: {state}\n", {"float", "quantized", "teacher"}),
            "alone": (f"load_quant_model: {state}\n", {"quantized"}),
            "moved": (f"load_model: {state}\n", {"quantized"}),
        }
        for name, (text, networks) in texts.items():
            (tmp_path / f"{name}.yaml").write_text(bare + text)
            assert main(["train", str(tmp_path / f"{name}.yaml")]) == 0
            told = json.loads((tmp_path / "runs" / name / "test.json").read_text())
            assert set(told["before"]) == networks
            assert told["before"]["quantized"] == pytest.approx(trained["best"])
            assert f"note: the policy is that of {state}" in capsys.readouterr().err
            assert "input_layer: 8" in told["policy"]
        (tmp_path / "other.yaml").write_text(DIGITS + f"test: true\nload_quant_model: {state}\n")
        assert main(["train", str(tmp_path / "other.yaml")]) == 2
        error = capsys.readouterr().err
        assert "other.yaml:11:19: load_quant_model: " in error
        assert "leave the policy's keys out: the checkpoint has its own" in error

    def test_a_checkpoint_brings_its_networks_width(self, tmp_path: Path) -> None:
        assert run(tmp_path, DIGITS + "arch_args: {width: 4}\n", "--epochs", "1") == 0
        (state,) = (tmp_path / "runs" / "run").glob("best-*.ckpt")
        assert run(tmp_path, f"task: classification\ntest: true\nload_quant_model: {state}\n") == 0

    def test_a_quantized_teacher(self, trained_in_float: Path, tmp_path: Path) -> None:
        (best,) = trained_in_float.glob("best-*.ckpt")
        hints = "quant_teacher: true\ndistill_config: [stem.conv]\ndistill_coeff: [1.0]\n"
        (tmp_path / "eight.yaml").write_text("extra_qconfig_dict: {w_qscheme: {bit: 8}, a_qscheme: {bit: 8}}\n")
        text = DIGITS + f"load_model: {best}\n" + hints
        (tmp_path / "same").mkdir()
        assert run(tmp_path / "same", text, "--epochs", "0") == 0
        assert run(tmp_path, text + "teacher_policy: eight.yaml\n", "--epochs", "0") == 0
        own = json.loads((tmp_path / "same" / "runs" / "run" / "start.json").read_text())["before"]
        other = json.loads((tmp_path / "runs" / "run" / "start.json").read_text())["before"]
        assert own["teacher"] == own["quantized"]
        assert other["teacher"] != other["quantized"]
        assert other["teacher"]["loss"] == pytest.approx(other["float"]["loss"], rel=0.05)


OWN_TASK = '''
"""A task of one's own: two numbers in, their sum out."""
import torch
from torch import nn
from torchmetrics import MeanSquaredError
from hessrank.distill.tasks import Task

class Sum(Task):
    monitor, mode = "error", "min"
    validation_batch_size = 4

    def __init__(self, data, *, folder, seed, terms=2):
        self.x = torch.randn(32, terms, generator=torch.Generator().manual_seed(seed))
        self.terms = terms
        self.notes = (f"sums of {terms}",)

    def model(self, width=4):
        return nn.Sequential(nn.Linear(self.terms, width), nn.ReLU(), nn.Linear(width, 1))

    def training_data(self):
        return self.x, self.x.sum(1, keepdim=True)

    def validation_data(self):
        return self.training_data()

    def loss(self, output, target):
        return nn.functional.mse_loss(output, target)

    def metrics(self):
        return {"error": MeanSquaredError()}
'''


OWN_NETWORK = """
from torch import nn

def net():
    return nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 1))
"""


def test_a_task_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.py").write_text(OWN_TASK)
    text = "task: mine.py:Sum\ntask_args: {terms: 3}\narch_args: {width: 8}\nepochs: 2\nlearning_rate: 1e-2\n"
    assert run(tmp_path, text) == 0
    assert "note: sums of 3" in capsys.readouterr().err
    metrics = pd.read_csv(tmp_path / "runs" / "run" / "metrics.csv")
    assert list(metrics)[-1] == "val/error"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    (folder / "code").mkdir()
    (folder / "code" / "mine.py").write_text(OWN_TASK)
    (folder / "nets.py").write_text(OWN_NETWORK)
    text = "task: code/mine.py:Sum\ntask_args: {terms: 3}\nepochs: 2\nlearning_rate: 1e-2\n"
    assert run(folder, text + "arch_args: {width: 8}\n") == 0
    assert run(folder, text + "arch_args: {width: 8}\nquant: false\n", "--out", str(folder / "float")) == 0
    assert run(folder, text + "arch: nets.py:net\n", "--out", str(folder / "nets")) == 0
    return folder


class TestACheckpointOfATaskOfOnesOwn:
    """It names no code that only existed while it was trained; the user does, and the message says how."""

    @pytest.mark.parametrize("where", [".", "..", "runs"])
    def test_the_message_works_as_printed(
        self, project: Path, where: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(project / where)
        for runs, option in ((project / "runs" / "run", "--task"), (project / "nets", "--arch")):
            (best,) = runs.glob("best-*.ckpt")
            command = ["export", os.path.relpath(best), "--out", "model.onnx"]
            assert main(command) == 2
            error = capsys.readouterr().err
            assert "no code is imported on a file's word" in error
            added = re.search(rf"add ({option} \S+) ", error)
            assert added, error
            assert main([*command, *added[1].split()]) == 0
            Path("model.onnx").unlink()

    def test_load_trained_takes_the_task_the_class_or_the_network(self, project: Path) -> None:
        (best,) = (project / "runs" / "run").glob("best-*.ckpt")
        file = project / "code" / "mine.py"
        kind = import_attribute(f"{file}:Sum", what="task")
        made = kind(None, folder=project, seed=0, terms=3)
        x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
        found = [load_trained(best, task=task) for task in (f"{file}:Sum", kind, made)]
        found.append(load_trained(best, arch=made.model))
        assert all(torch.equal(model(x), found[0](x)) for model in found)
        with torch.no_grad():
            error = float((found[0](made.x) - made.x.sum(1, keepdim=True)).square().mean())
        record = json.loads((project / "runs" / "run" / "result.json").read_text())
        assert error == pytest.approx(record["best"]["error"], rel=1e-5)
        with pytest.raises(OptionError, match="not both"):
            load_trained(best, task=kind, arch=made.model)
        with pytest.raises(LoadError, match=r"add --task \S+mine.py:Sum"):
            load_trained(best)

    def test_no_file_of_the_project_is_imported_without_being_named(
        self, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shutil.copytree(project, tmp_path / "copy")
        for file in (tmp_path / "copy" / "code" / "mine.py", tmp_path / "copy" / "nets.py"):
            file.write_text("from pathlib import Path\nPath(__file__).with_suffix('.imported').touch()\n")
        monkeypatch.chdir(tmp_path / "copy")
        for best in (tmp_path / "copy").rglob("best-*.ckpt"):
            for command in (["export", str(best), "--out", "m.onnx"], ["rank", str(best), "--data", "random"]):
                assert main(command) == 2
        assert not list((tmp_path / "copy").rglob("*.imported"))
        assert main(["export", str(best), "--arch", "nets.py:net", "--out", "m.onnx"]) == 2
        assert list((tmp_path / "copy").rglob("*.imported"))  # the user named it

    def test_a_float_checkpoint_too(self, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (best,) = (project / "float").glob("best-*.ckpt")
        with pytest.raises(LoadError, match="does not say what builds its network: add --arch"):
            load_model(best)
        kind = import_attribute(f"{project / 'code' / 'mine.py'}:Sum", what="task")
        made = kind(None, folder=project, seed=0, terms=3)
        assert load_model(best, arch=made.model).arch_args == {"width": 8}
        text = "task: code/mine.py:Sum\ntask_args: {terms: 3}\nepochs: 1\n" + f"load_model: {best}\n"
        (project / "next.yaml").write_text(text)
        assert main(["train", str(project / "next.yaml")]) == 0
        assert "load_model" in capsys.readouterr().err

    def test_the_run_file_that_is_started_names_it(self, project: Path) -> None:
        (best,) = (project / "runs" / "run").glob("best-*.ckpt")
        text = f"task: code/mine.py:Sum\ntask_args: {{terms: 3}}\ntest: true\nonnx: true\nload_quant_model: {best}\n"
        (project / "judge.yaml").write_text(text)
        assert main(["train", str(project / "judge.yaml")]) == 0
        told = json.loads((project / "runs" / "judge" / "test.json").read_text())
        trained = json.loads((project / "runs" / "run" / "result.json").read_text())
        assert told["before"] == {"quantized": pytest.approx(trained["best"])}
        assert (project / "runs" / "judge" / "model.onnx").exists()


def test_a_task_is_for_checkpoints_of_trainings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["export", "m.pth", "--policy", "p.yaml", "--task", "mine.py:Sum", "--out", str(tmp_path / "m.onnx")]
    assert main(command) == 2
    assert "--task goes with a checkpoint of a training" in capsys.readouterr().err


MISTAKES = {
    "no such task": ("task: lowligt", "run.yaml:1:7: no task named 'lowligt'; nearest is 'lowlight'"),
    "no such argument": ("task_args: {ptch: 3}", "run.yaml:1:12: no argument of the task lowlight named 'ptch'"),
    "no such weights": ("load_model: nothing.pth", "run.yaml:1:13: load_model: there is no file"),
    "no such teacher": ("load_teacher_model: nothing.pth", "run.yaml:1:21: load_teacher_model: there is no file"),
    "no such data": ("data: ./nothing", "run.yaml:1:7: "),
    "a size that the network cannot take": ("task_args: {patch: 33}", "patch is 33; it has to be a multiple of 32"),
    "no such architecture": ("arch: nope.py:net", "nope.py: there is no such file"),
    "no such tap": (
        "arch_args: {dbf_width: 2, dble_width: 2}\ndistill_config: [DBF.DBF_conv1.lrelu_dup2]\ndistill_coeff: [1]",
        "run.yaml:2:18: no layer named 'DBF.DBF_conv1.lrelu_dup2'; nearest is 'DBF.DBF_conv1.lrelu_dup1'",
    ),
    "no such loss": (
        "arch_args: {dbf_width: 2, dble_width: 2}\ndistill_loss: msee\n"
        "distill_config: [DBF.DBF_conv1.lrelu]\ndistill_coeff: [1]",
        "run.yaml:2:15: no distillation loss named 'msee'; nearest is 'mse'",
    ),
    "weights of another network": (
        "load_model: digits.pth",
        "the weights do not fit the architecture",
    ),
    "a class that is no task": ("task: os:path", "run.yaml:1:7: task os:path: this is no class like"),
    "no model at all": ("load_model: run.yaml", "this is a text file, not a model file"),
}


def test_an_option_has_the_bounds_of_its_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, DIGITS, "--num-nodes", str(2**63)) == 2
    assert re.search(r"^error: num_nodes: 9223372036854775808 is not \d+ or less$", capsys.readouterr().err, re.M)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("text", "expected"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_one_line_and_writes_nothing(
    text: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(DigitNet().state_dict(), tmp_path / "digits.pth")
    assert run(tmp_path, text, "--epochs", "1") == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert expected in error
    assert not (tmp_path / "runs").exists()


def test_a_quantized_state_is_no_float_network(
    trained_in_float: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (best,) = trained_in_float.glob("best-*.ckpt")
    assert run(tmp_path, DIGITS + f"load_model: {best}\n", "--epochs", "1") == 0
    (state,) = (tmp_path / "runs" / "run").glob("best-*.ckpt")
    (tmp_path / "next").mkdir()
    assert run(tmp_path / "next", DIGITS + f"load_model: {state}\n") == 2
    assert "is a trained quantized network: give its float network" in capsys.readouterr().err
    assert main(["export", str(tmp_path / "runs"), "--out", str(tmp_path / "m.onnx")]) == 2
    assert "folder" in capsys.readouterr().err
    assert main(["export", str(best), "--out", str(tmp_path / "m.onnx")]) == 2
    assert "is no checkpoint of a quantized training" in capsys.readouterr().err


def test_quantized_from_random_weights_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, DIGITS, "--epochs", "0") == 0
    assert "note: the ranges are those of an untrained network" in capsys.readouterr().err


def test_what_only_training_mode_computes_is_said_before_the_first_step(tmp_path: Path) -> None:
    class WithAux(Net):
        def forward(self, x: torch.Tensor) -> Any:
            y = super().forward(x)
            return (y, self.aux(y)) if self.training else y

    model = WithAux()
    model.aux = torch.nn.Linear(3, 3)
    said: list[str] = []
    trained(tmp_path / "quantized", FOUR_BITS, model, epochs=1, say=said.append)
    told = [line for line in said if "left out: aux (12 parameters); returns 1 tensor, not 2 tensors" in line]
    assert told[0].startswith("note: forward computes something else in training mode")
    assert said.index(told[0]) < said.index(next(line for line in said if line.startswith("1 epochs of 6 steps")))
    assert told[0].removeprefix("note: ") in json.loads((tmp_path / "quantized" / "result.json").read_text())["notes"]
    said.clear()
    trained(tmp_path / "hinted", HINTED, model, epochs=1, say=said.append)
    assert sum("left out: aux" in line for line in said) == 1


def test_keys_that_do_nothing_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = DIGITS + "quant: false\nonnx: true\ndistill_loss: cosine\nteacher_arch_args: {width: 8}\n"
    assert run(tmp_path, text, "--epochs", "0") == 0
    told = capsys.readouterr().err
    assert "note: onnx does nothing: quant is false" in told
    assert "note: distill_loss does nothing: nothing is to be distilled" in told
    assert "note: teacher_arch_args does nothing: nothing is to be distilled" in told


def test_a_part_of_the_weights_stops_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first user lost days to a student that had silently not loaded its weights."""
    state = DigitNet().state_dict()
    removed = next(iter(state))
    renamed = {("other." + name if name == removed else name): value for name, value in state.items()}
    torch.save(renamed, tmp_path / "part.pth")
    assert run(tmp_path, DIGITS + "load_model: part.pth\n") == 2
    error = capsys.readouterr().err
    assert f"missing from the file: {removed}; not in the network: other.{removed}" in error
    assert not (tmp_path / "runs").exists()


def test_debug_is_a_short_trial(tmp_path: Path) -> None:
    text = DIGITS.replace("samples: 256", "samples: 1024") + "debug: true\n"
    for _ in range(2):  # the second replaces the first
        assert run(tmp_path, text, "--epochs", "50") == 0
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["run-debug"]
    metrics = pd.read_csv(tmp_path / "runs" / "run-debug" / "metrics.csv")
    assert metrics["step"].tolist() == [4, 8]


def test_pdb_debug_opens_the_debugger_where_it_broke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pdb

    opened = []
    monkeypatch.setattr(pdb, "post_mortem", opened.append)
    assert run(tmp_path, DIGITS + "pdb_debug: true\nload_model: run.yaml\n") == 2
    assert len(opened) == 1
    assert run(tmp_path, DIGITS + "load_model: run.yaml\n") == 2
    assert len(opened) == 1


def test_ctrl_c_tells_how_to_go_on(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(DIGITS.replace("samples: 256", "samples: 1024"))
    command = ["train", "run.yaml", "--epochs", "500"]
    code, err = interrupted(command, tmp_path, sign="training 17/")  # the second epoch has begun
    assert code == 130, err
    told = "interrupted: runs/run holds the epochs that were finished: go on with --resume"
    assert err.strip().splitlines()[-1] == told
    assert "Traceback" not in err
    assert list((tmp_path / "runs" / "run").glob("last-*.ckpt"))


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    """The same global batch in two processes: the same network, to rounding."""
    text = DIGITS.replace("4}", "8}") + "arch_args: {width: 4}\nfreeze_bn: true\n"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for count in (1, 2):
        folder = tmp_path / str(count)
        folder.mkdir()
        (folder / "run.yaml").write_text(text)
        command = [sys.executable, "-m", "hessrank", "train", "run.yaml", "--devices", str(count)]
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, check=False, env=environment, timeout=250
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("quantized, before") == 1
    one, two = (tmp_path / str(count) / "runs" / "run" for count in (1, 2))
    pd.testing.assert_frame_equal(pd.read_csv(one / "metrics.csv"), pd.read_csv(two / "metrics.csv"), rtol=2e-3)
    states = [torch.load(next(folder.glob("last-*.ckpt")), weights_only=True)["state_dict"] for folder in (one, two)]
    for name, value in states[0].items():
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            torch.testing.assert_close(states[1][name], value, rtol=1e-3, atol=2e-5, msg=name)


def test_start_in_python_is_the_same(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(DIGITS + "pictures: 0\n")
    said: list[str] = []
    result = start(read_run(tmp_path / "run.yaml"), say=said.append, out=tmp_path / "elsewhere")
    assert result.folder == tmp_path / "elsewhere"
    assert result.metrics["val/top1"].iloc[-1] == pytest.approx(result.last["top1"])
    assert any(line.startswith("2 epochs of 4 steps of 64 samples") for line in said)
    assert Policy.read(tmp_path / "run.yaml").extra_qconfig_dict.w_qscheme.bit == 4  # hessrank check reads it too


def test_one_file_holds_the_network_and_its_teacher(tmp_path: Path) -> None:
    """As Lightning writes it, with a head that the network lacks."""
    networks = {"model": DigitNet(), "teacher": DigitNet()}
    state = {f"{name}.{key}": value for name, one in networks.items() for key, value in one.state_dict().items()}
    extra = {"model.projector.weight": torch.ones(2), "teacher.projector.weight": torch.ones(2)}
    torch.save({"state_dict": {**state, **extra}, "epoch": 3}, tmp_path / "both.ckpt")
    keys = "load_model: both.ckpt\nload_teacher_model: both.ckpt\nteacher_weights_key: teacher\nweights_key: model\n"
    hint = "distill_config: [add]\ndistill_coeff: [0.7]\n"
    (tmp_path / "run.yaml").write_text(DIGITS + keys + hint + "ignore_keys: projector.*\n")
    job = plan_run(read_run(tmp_path / "run.yaml"), tmp_path / "out")
    assert torch.equal(
        job.networks.student.state_dict()["classifier.weight"], networks["model"].state_dict()["classifier.weight"]
    )
    assert job.networks.teacher is not None
    taught = job.networks.teacher._module.state_dict()["classifier.weight"]
    assert torch.equal(taught, networks["teacher"].state_dict()["classifier.weight"])
    told = [note for note in job.notes if "left out" in note]
    assert any(note.startswith("load_model") and "keys loaded, 1 left out" in note for note in told)
    assert sum("projector.weight" in note for note in told) == 2


def test_without_lightning_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    from hessrank.distill import training
    from hessrank.errors import HessrankError

    real = importlib.util.find_spec
    monkeypatch.setattr(training, "find_spec", lambda name: None if name == "lightning" else real(name))
    with pytest.raises(HessrankError, match=r"training needs lightning: .*pip install 'lightning<3,>=2\.6\.6'$"):
        training.require_lightning()
