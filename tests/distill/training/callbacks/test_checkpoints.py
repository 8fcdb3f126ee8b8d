"""Checkpoints: whole at every moment, readable without trust, and a run that goes on as if nothing had happened."""

from __future__ import annotations

import errno
import json
import os
import random
import re
import resource
import shutil
import time
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
import pytest
import torch
from helpers.training_networks import FOUR_BITS, HINTED, Net, in_child, network, points, trained
from tensorboard.summary.writer.record_writer import RecordWriter
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from hessrank.distill.tasks.classification.metrics import Top1
from hessrank.distill.training.outputs.checkpoint_contents import FACTS
from hessrank.distill.training.outputs.checkpoint_files import find_checkpoints, find_newest
from hessrank.distill.training.outputs.load_trained import is_trained, load_trained
from hessrank.errors import HessrankError, LoadError, OptionError, OutputError
from hessrank.files.one_writer import one_writer
from hessrank.quant.policy import Policy
from hessrank.quant.prepare import QuantizedModel, prepare

_DRAWN = random.Random(0)
RANDOM_MOMENTS = [round(_DRAWN.uniform(0.05, 1.1), 3) for _ in range(10)]


def read(path: Path) -> dict[str, Any]:
    held: dict[str, Any] = torch.load(path, weights_only=True)
    return held


def same(one: Any, other: Any) -> bool:
    """Return whether two nests hold the same values, tensors to the bit."""
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def assert_same_runs(folder: Path, expected: Path) -> None:
    """Compare weights, optimizer, tables and the files that are there."""
    assert [path.name for path in folder.glob("*.ckpt")] == [path.name for path in expected.glob("*.ckpt")]
    for path in expected.glob("*.ckpt"):
        ours, theirs = read(folder / path.name), read(path)
        for key in ("state_dict", "optimizer_states", "epoch", "global_step", "projections", "callbacks"):
            assert same(ours.get(key), theirs.get(key)), (path.name, key)
    for name in ("metrics.csv", "steps.csv", "result.json"):
        assert (folder / name).read_text() == (expected / name).read_text(), name


OPTIONS: dict[str, dict[str, Any]] = {
    "distilled": {},
    "learned steps": {"policy": HINTED | {"extra_qconfig_dict": {"w_fakequantize": "lsq", "a_fakequantize": "lsq"}}},
    "float": {"policy": None},
    "cosine, batch norm": {"schedule": "cosine", "model": network(norm=True)},
    "two loading processes": {"workers": 2},
    "a data loader of one's own": {"data": DataLoader(TensorDataset(*points()), batch_size=8, shuffle=True)},
    "warm-up": {"distill_warmup": 2.0, "detailed_epochs": 0, "log_every": 4},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_resumed_is_uninterrupted(name: str, tmp_path: Path) -> None:
    options = OPTIONS[name]
    epochs = 4
    trained(tmp_path / "whole", epochs=epochs, **options)

    class StopError(Exception):
        pass

    def stop(stage: str, done: int, total: int) -> None:
        if done == 15:  # in the middle of the third epoch
            raise StopError

    with pytest.raises(StopError):
        trained(tmp_path / "parts", epochs=epochs, progress=stop, **options)
    trained(tmp_path / "parts", epochs=epochs, resume=True, **options)
    assert_same_runs(tmp_path / "parts", tmp_path / "whole")


def test_killed_at_ten_random_moments(tmp_path: Path) -> None:
    """SIGKILL, then resume, ten times: never an unreadable checkpoint, and the same end as without."""
    options = {"epochs": 120, "progress": slowly}
    trained(tmp_path / "whole", **options)
    folder = tmp_path / "killed"
    killed = 0
    for moment in RANDOM_MOMENTS:
        status = in_child(lambda: trained(folder, resume=True, **options), kill_after=moment)
        killed += status == -9
        for path, _, _ in find_checkpoints(folder):
            assert read(path)["state_dict"]
    assert killed == len(RANDOM_MOMENTS)
    trained(folder, resume=True, **options)
    assert_same_runs(folder, tmp_path / "whole")


def slowly(stage: str, done: int, total: int) -> None:
    """Let a step last a moment, so that there is something to be killed in."""
    time.sleep(0.004)


def test_a_full_disk_loses_no_earlier_checkpoint(tmp_path: Path) -> None:
    """A limit on the size of files stops a write in the middle, as a full disk does."""
    folder = tmp_path / "run"
    trained(folder, epochs=2)
    before = {path.name: path.read_bytes() for path in folder.glob("*.ckpt")}
    size = max(map(len, before.values()))
    said = tmp_path / "said"

    def on_a_full_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size // 2))
        try:
            trained(folder, epochs=5, resume=True)
        except HessrankError as error:
            said.write_text(str(error))

    assert in_child(on_a_full_disk) == 0
    assert "last-epoch0003.ckpt: cannot be written: File too large" in said.read_text()
    assert {path.name: path.read_bytes() for path in folder.glob("*.ckpt")} == before
    assert not list(folder.glob(".*"))
    trained(folder, epochs=5, resume=True)
    trained(tmp_path / "whole", epochs=5)
    assert_same_runs(folder, tmp_path / "whole")


def test_a_full_disk_under_tensorboard_is_one_line_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """TensorBoard writes in a thread of its own, which would print a traceback."""
    write, written = RecordWriter.write, []

    def until_it_is_full(writer: RecordWriter, data: bytes) -> None:
        written.append(data)
        if len(written) > 45:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(writer, data)

    monkeypatch.setattr(RecordWriter, "write", until_it_is_full)
    with pytest.raises(OutputError, match=r"run: cannot be written: No space left on device; .* go on with resume"):
        trained(tmp_path / "run", epochs=5)
    assert "Traceback" not in capfd.readouterr().err
    assert find_newest(tmp_path / "run") is not None
    monkeypatch.setattr(RecordWriter, "write", write)
    trained(tmp_path / "run", epochs=5, resume=True)
    trained(tmp_path / "whole", epochs=5)
    assert_same_runs(tmp_path / "run", tmp_path / "whole")


def test_files_that_a_kill_left_are_put_in_order(tmp_path: Path) -> None:
    """Killed between writing the last epoch and removing the one before it, or linking the best."""
    trained(tmp_path / "whole", epochs=3)
    folder = tmp_path / "parts"
    trained(folder, epochs=2)
    (last,) = folder.glob("last-*.ckpt")
    (folder / "last-epoch0001.ckpt").write_bytes(last.read_bytes())
    for best in folder.glob("best-*.ckpt"):
        if best.name == "best-epoch0002.ckpt":
            best.unlink()
    trained(folder, epochs=3, resume=True)
    assert_same_runs(folder, tmp_path / "whole")


def test_checkpoints_of_others_in_the_folder_stay(tmp_path: Path) -> None:
    """Put there by the user while it trains: one with our names is neither removed nor taken for the best."""
    folder = tmp_path / "run"
    trained(folder, epochs=1)
    names = ["best-epoch0007.ckpt", ".env.1", "results/.data.2023.csv", "last-epoch0000.ckpt"]
    for name in names:
        (folder / name).write_bytes(b"mine")
    trained(folder, epochs=3, resume=True)
    assert all((folder / name).read_bytes() == b"mine" for name in names)


@pytest.mark.parametrize(
    "name", ["metrics.csv", "result.json", "start.json", "best-epoch0002.ckpt", "results/epoch0001.txt", "curves.png"]
)
def test_a_folder_with_a_stranger_of_our_names_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / name).write_text("mine")
    with pytest.raises(OutputError, match=re.escape(f"holds {name}, which is of no run of hessrank")):
        trained(tmp_path, epochs=1)
    assert (tmp_path / name).read_text() == "mine"
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [tmp_path / name]


def test_a_shared_folder_keeps_what_is_not_ours(tmp_path: Path) -> None:
    names = [".env.1", "notes.txt", "sub/.data.2023.csv", ".x.4711.ckpt"]
    (tmp_path / "sub").mkdir()
    for name in names:
        (tmp_path / name).write_text("mine")
    trained(tmp_path, epochs=1)
    assert all((tmp_path / name).read_text() == "mine" for name in names)


def test_a_second_training_in_the_folder_is_told(tmp_path: Path) -> None:
    with one_writer(tmp_path):
        assert in_child(lambda: trained(tmp_path, epochs=1)) == 1
        with pytest.raises(OutputError, match="writing it"):
            trained(tmp_path, epochs=1)
    assert list(tmp_path.iterdir()) == []


def test_the_names_hold_the_epoch(tmp_path: Path) -> None:
    result = trained(tmp_path, epochs=3, learning_rate=0.1)
    found = {kind: number for _, kind, number in find_checkpoints(tmp_path)}
    assert found == {"last": 3, "best": result.best_epoch}
    assert result.metrics["val/loss"].idxmin() + 1 == result.best_epoch
    assert result.best["loss"] < result.before["quantized"]["loss"]
    assert not result.notes
    assert find_newest(tmp_path) == tmp_path / "last-epoch0003.ckpt"


def test_a_checkpoint_holds_policy_and_bits_and_settings(tmp_path: Path) -> None:
    trained(tmp_path, HINTED, epochs=1)
    facts = read(tmp_path / "last-epoch0001.ckpt")[FACTS]
    assert Policy.of(HINTED).distill_config == ("relu", "inner.relu_dup1")
    assert "distill_config: [relu, inner.relu_dup1]" in facts["policy"]
    assert set(facts["bits"].values()) == {4}
    assert facts["bits"]["weight of first"] == 4
    assert facts["settings"]["learning_rate"] == 1e-2
    assert facts["settings"]["seed"] == 0
    assert facts["epoch"] == 1
    assert set(facts["metrics"]) == {"val/loss"}


def test_the_best_weights_are_the_ones_returned(tmp_path: Path) -> None:
    result = trained(tmp_path, epochs=3, learning_rate=0.1)
    assert result.best_epoch
    x, y = points(20, seed=1)
    with torch.no_grad():
        loss = float(nn.functional.cross_entropy(result.model(x), y))
    assert loss == pytest.approx(result.best["loss"], rel=1e-6)
    assert loss == pytest.approx(result.metrics["val/loss"].min(), rel=1e-6)
    assert not result.model.training


class TestNoEpochIsBetter:
    """A rate that breaks the network: the state before the first step is the best."""

    BROKEN: ClassVar[dict[str, Any]] = {"learning_rate": 30.0, "epochs": 3}
    SAID = (
        "no epoch was better than before the first step, by loss",
        "the best state is therefore the untrained network, as it was before the first step",
    )

    def prepared(self) -> QuantizedModel:
        """What a training starts with."""
        with torch.random.fork_rng():
            return prepare(network(), Policy.of(FOUR_BITS), points(), batch_size=8).eval()

    def test_it_is_returned_saved_and_said(self, tmp_path: Path) -> None:
        said: list[str] = []
        result = trained(tmp_path, FOUR_BITS, say=said.append, **self.BROKEN)
        assert result.best_epoch == 0
        assert result.best == result.before["quantized"]
        assert result.last["loss"] > result.best["loss"]
        assert "quantized, epoch 0, the best" in str(result)
        assert "quantized, epoch 3, the last" in str(result)
        assert said[-2:] == [f"note: {text}" for text in self.SAID]
        record = json.loads((tmp_path / "result.json").read_text())
        assert record["best_epoch"] == 0
        assert tuple(record["notes"][-2:]) == self.SAID
        assert {path.name for path in tmp_path.glob("*.ckpt")} == {"best-epoch0000.ckpt", "last-epoch0003.ckpt"}
        x, _ = points(20, seed=1)
        expected = self.prepared()(x)
        assert torch.equal(result.model(x), expected)
        loaded = load_trained(tmp_path / "best-epoch0000.ckpt", arch=Net)
        assert torch.equal(loaded(x), expected)
        assert "; ".join(self.SAID) in loaded.warnings[-1]
        assert not load_trained(tmp_path / "last-epoch0003.ckpt", arch=Net).warnings
        facts = read(tmp_path / "best-epoch0000.ckpt")[FACTS]
        assert facts["epoch"] == 0
        assert facts["metrics"] == {"val/loss": result.best["loss"]}

    def test_on_resume_too(self, tmp_path: Path) -> None:
        trained(tmp_path / "whole", FOUR_BITS, **self.BROKEN)
        for epochs in (1, 3):
            result = trained(tmp_path / "parts", FOUR_BITS, resume=True, **(self.BROKEN | {"epochs": epochs}))
            assert result.best_epoch == 0
            assert result.notes[-2:] == self.SAID
        assert_same_runs(tmp_path / "parts", tmp_path / "whole")

    def test_in_float_too(self, tmp_path: Path) -> None:
        model = network()
        result = trained(tmp_path, None, model, **self.BROKEN)
        assert result.best_epoch == 0
        x, _ = points(20, seed=1)
        assert torch.equal(result.model(x), model.eval()(x))
        assert result.notes[-2:] == self.SAID

    def test_a_metric_that_should_be_large(self, tmp_path: Path) -> None:
        metrics = {"top1": Top1()}
        result = trained(tmp_path, FOUR_BITS, metrics=metrics, monitor="top1", mode="max", **self.BROKEN)
        better = result.metrics["val/top1"].max() > result.before["quantized"]["top1"]
        assert (result.best_epoch > 0) == better
        assert result.best["top1"] == max(result.metrics["val/top1"].max(), result.before["quantized"]["top1"])

    def test_a_kill_between_its_file_and_the_first_epochs_is_a_start(self, tmp_path: Path) -> None:
        trained(tmp_path / "whole", FOUR_BITS, **self.BROKEN)
        (tmp_path / "killed").mkdir()
        for name in ("start.json", "best-epoch0000.ckpt"):
            shutil.copy(tmp_path / "whole" / name, tmp_path / "killed")
        trained(tmp_path / "killed", FOUR_BITS, **self.BROKEN)
        assert_same_runs(tmp_path / "killed", tmp_path / "whole")


class TestLoadTrained:
    def test_it_computes_what_the_training_gave(self, tmp_path: Path) -> None:
        lsq = HINTED | {"extra_qconfig_dict": {"w_fakequantize": "lsq"}}
        result = trained(tmp_path, lsq, epochs=2, learning_rate=0.1)
        assert result.best_epoch
        loaded = load_trained(tmp_path / f"best-epoch{result.best_epoch:04d}.ckpt", arch=Net)
        x, _ = points(20, seed=1)
        assert torch.equal(loaded(x), result.model(x))
        assert loaded.layer_nodes == result.model.layer_nodes

    def test_batch_norm_too(self, tmp_path: Path) -> None:
        result = trained(tmp_path, FOUR_BITS, network(norm=True), epochs=2)
        loaded = load_trained(find_newest(tmp_path), arch=Net, arch_args={"norm": True})  # type: ignore[arg-type]
        (path,) = tmp_path.glob("best-*.ckpt")
        best = load_trained(path, arch=Net, arch_args={"norm": True})
        x, _ = points(20, seed=1)
        assert torch.equal(best(x), result.model(x))
        assert loaded(x).shape == (20, 3)

    def test_code_is_not_imported_on_a_files_word(self, tmp_path: Path) -> None:
        trained(tmp_path, FOUR_BITS, epochs=1, arch="os:system")
        with pytest.raises(LoadError, match=r"os:system.*not part of hessrank"):
            load_trained(tmp_path / "last-epoch0001.ckpt")

    def test_a_float_training_says_so(self, tmp_path: Path) -> None:
        trained(tmp_path, None, epochs=1)
        path = tmp_path / "last-epoch0001.ckpt"
        assert not is_trained(path)
        with pytest.raises(LoadError, match="trained in float"):
            load_trained(path, arch=Net)

    def test_other_files_say_so(self, tmp_path: Path) -> None:
        torch.save({"model": {}}, tmp_path / "x.pth")
        (tmp_path / "x.txt").write_text("x")
        assert not is_trained(tmp_path / "x.pth")
        assert not is_trained(tmp_path / "x.txt")
        with pytest.raises(LoadError, match="no checkpoint of a hessrank training"):
            load_trained(tmp_path / "x.pth")


class TestGoingOn:
    def test_a_folder_that_holds_a_run_is_not_written_over(self, tmp_path: Path) -> None:
        trained(tmp_path, epochs=1)
        with pytest.raises(OptionError, match=r"a run is here already \(last-epoch0001.ckpt\): go on with resume"):
            trained(tmp_path, epochs=1)

    def test_other_settings_are_no_resumption(self, tmp_path: Path) -> None:
        trained(tmp_path, epochs=1)
        with pytest.raises(OptionError, match=r"something else: learning_rate \(0.01 → 0.1\)"):
            trained(tmp_path, epochs=2, resume=True, learning_rate=0.1)
        trained(tmp_path / "cosine", epochs=2, schedule="cosine")
        with pytest.raises(OptionError, match=r"something else: epochs \(2 → 4\)"):
            trained(tmp_path / "cosine", epochs=4, schedule="cosine", resume=True)
        with pytest.raises(OptionError, match="something else: policy"):
            trained(tmp_path, FOUR_BITS, epochs=2, resume=True)

    def test_what_is_over_stays_over(self, tmp_path: Path) -> None:
        first = trained(tmp_path, epochs=2)
        again = trained(tmp_path, epochs=2, resume=True)
        pd.testing.assert_frame_equal(first.metrics, again.metrics)
        assert again.best == first.best

    def test_nothing_to_go_on_from_is_a_start(self, tmp_path: Path) -> None:
        assert len(trained(tmp_path / "new", epochs=1, resume=True).metrics) == 1

    def test_a_folder_that_was_moved_goes_on(self, tmp_path: Path) -> None:
        trained(tmp_path / "whole", epochs=3)
        trained(tmp_path / "old", epochs=2)
        os.rename(tmp_path / "old", tmp_path / "new")
        trained(tmp_path / "new", epochs=3, resume=True)
        assert_same_runs(tmp_path / "new", tmp_path / "whole")
