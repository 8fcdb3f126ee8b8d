"""What can go wrong in a training, and what is said and kept then."""

from __future__ import annotations

import logging
import random
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.training_networks import FOUR_BITS, HINTED, Net, last_state, network, points, trained
from helpers.zoo import changes, state
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset
from torchmetrics.classification import MulticlassAccuracy

from hessrank.distill.training.inputs.devices import Devices, choose_devices
from hessrank.distill.training.inputs.timeout import within
from hessrank.distill.training.loop.nonfinite import DivergedError
from hessrank.distill.training.outputs.run_folder import shared_folder
from hessrank.errors import DataError, HessrankError, LoadError, LossError, ModelError, OptionError, UnknownNameError
from hessrank.quant.prepare import prepare


def one_line(error: pytest.ExceptionInfo[BaseException]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


class Weighted:
    """Cross-entropy times a number."""

    weight = 1.0

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        return nn.functional.cross_entropy(output, target) * self.weight


class TestDamagedCheckpoints:
    @pytest.mark.parametrize(
        ("spoil", "says"),
        [
            pytest.param(
                lambda held: held["state_dict"].pop("first.weight"), "Missing key", id="a weight is missing"
            ),
            pytest.param(
                lambda held: held.update(optimizer_states=[]),
                "it lacks the state of the optimizer",
                id="no state of an optimizer",
            ),
            pytest.param(lambda held: held.update(optimizer_states=3), "not iterable", id="no list of states"),
        ],
    )
    def test_a_run_that_cannot_go_on_says_so_and_stays_as_it_is(self, tmp_path: Path, spoil: Any, says: str) -> None:
        trained(tmp_path, None, epochs=1)
        (last,) = tmp_path.glob("last-*.ckpt")
        held = torch.load(last, weights_only=True)
        spoil(held)
        torch.save(held, last)
        before = {path.name: path.read_bytes() for path in tmp_path.glob("*.ckpt")}
        with pytest.raises(LoadError) as caught:
            trained(tmp_path, None, epochs=2, resume=True)
        assert one_line(caught).startswith(f"{last}: nothing to go on from (")
        assert says in str(caught.value)
        assert {path.name: path.read_bytes() for path in tmp_path.glob("*.ckpt")} == before

    def test_best_weights_of_another_network_are_refused(self, tmp_path: Path) -> None:
        trained(tmp_path, None, epochs=1)
        (best,) = tmp_path.glob("best-*.ckpt")
        held = torch.load(best, weights_only=True)
        held["state_dict"]["other"] = held["state_dict"].pop("first.weight")
        torch.save(held, best)
        with pytest.raises(LoadError) as caught:
            trained(tmp_path, None, epochs=1, resume=True)
        assert one_line(caught).startswith(f"{best}: the weights do not fit the architecture")


def test_a_folder_is_called_what_it_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    trained(Path("${HOME}"), None, epochs=1)
    assert list((tmp_path / "${HOME}" / "tensorboard").glob("events.*"))
    assert not (tmp_path / "home").exists()


class TestNotFinite:
    def test_a_loss_that_is_infinite_keeps_the_last_epoch(self, tmp_path: Path) -> None:
        loss = Weighted()
        trained(tmp_path, None, epochs=1, optimizer="sgd", loss=loss)
        before = {path.name: path.read_bytes() for path in tmp_path.glob("*.ckpt")}

        loss.weight = float("inf")
        with pytest.raises(DivergedError) as caught:
            trained(tmp_path, None, epochs=2, optimizer="sgd", resume=True, loss=loss)
        assert "epoch 1, step 6: the loss is inf: all layers are finite, the loss alone is not" in one_line(caught)
        assert {path.name: path.read_bytes() for path in tmp_path.glob("*.ckpt")} == before

    def test_the_first_layer_is_named(self, tmp_path: Path) -> None:
        class Root(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.fc, self.root = nn.Linear(6, 3), Gain()

            def forward(self, x: Tensor) -> Tensor:
                return self.root(self.fc(x).abs())

        class Gain(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.gain = nn.Parameter(torch.tensor(0.01))

            def forward(self, x: Tensor) -> Tensor:
                return x * self.gain.sqrt()

        def drive_the_gain_below_zero(output: Tensor, target: Tensor) -> Tensor:
            return output.mean()

        options = {"loss": drive_the_gain_below_zero, "learning_rate": 0.1, "data": points(), "epochs": 1}
        for policy, layer in ((FOUR_BITS, "sqrt"), (None, "root")):
            with pytest.raises(DivergedError) as caught:
                trained(tmp_path, policy, Root(), **options)
            assert "epoch 0, step 1: the loss is nan: the first layer whose activation" in one_line(caught)
            assert f"{layer!r}; try a smaller learning_rate" in one_line(caught)

    def test_a_weight_that_went_in_the_last_step_is_not_saved(self, tmp_path: Path) -> None:
        """The loss of the last step is finite, its gradient is not: validation is the first to see it."""

        class Trap(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, x: Tensor) -> Tensor:
                return x.clone()

            @staticmethod
            def backward(ctx: Any, gradient: Tensor) -> Tensor:
                return gradient * float("nan")

        def trap(output: Tensor, target: Tensor) -> Tensor:
            return nn.functional.cross_entropy(Trap.apply(output), target)

        with pytest.raises(DivergedError, match=r"the weight 'first.weight' is not finite"):
            trained(tmp_path, None, data=points(8), loss=trap, epochs=1)
        assert not list(tmp_path.glob("*.ckpt"))

    def test_data_that_are_not_finite_are_named(self, tmp_path: Path) -> None:
        x, y = points()
        x[40] = float("nan")
        with pytest.raises(DivergedError, match="the data of this step hold NaN or infinity"):
            trained(tmp_path, FOUR_BITS, data=(x, y))


class Slow(Dataset[Any]):
    """Gives its first samples at once and hangs at the others."""

    def __init__(self, quick: int) -> None:
        self.quick = quick

    def __len__(self) -> int:
        return 48

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if index >= self.quick:
            time.sleep(3600)
        x, y = points()
        return x[index], y[index]


class TestData:
    @pytest.mark.parametrize("quick", [0, 32], ids=["from the start", "after calibration"])
    def test_a_data_set_that_hangs_stops_the_run(self, quick: int, tmp_path: Path) -> None:
        with pytest.raises(DataError) as caught:
            trained(tmp_path, FOUR_BITS, data=Slow(quick), data_timeout=0.3)
        assert "the training data gave nothing within 0.3 s" in one_line(caught)
        assert not list(tmp_path.glob("*.ckpt"))

    def test_validation_that_hangs_too(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="the validation data gave nothing"):
            trained(tmp_path, FOUR_BITS, validation=Slow(0), data_timeout=0.3)

    def test_what_data_raise_is_raised(self) -> None:
        def broken() -> None:
            raise ZeroDivisionError("inside")

        with pytest.raises(ZeroDivisionError, match="inside"):
            within(5.0, "data", broken)

    def test_too_few_for_a_batch(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="5 training samples do not fill a batch of 8"):
            trained(tmp_path, data=points(5))

    def test_none_at_all(self, tmp_path: Path) -> None:
        with pytest.raises(DataError):
            trained(tmp_path, data=[])
        with pytest.raises(DataError, match=r"there is no validation data|the data set is empty"):
            trained(tmp_path, validation=[])

    def test_no_target(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="needs a target"):
            trained(tmp_path, data=points()[0])

    def test_a_shape_that_the_network_does_not_take(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="does not take this input"):
            trained(tmp_path, data=(torch.randn(16, 5), torch.zeros(16, dtype=torch.int64)))

    def test_labels_out_of_range(self, tmp_path: Path) -> None:
        x, _ = points()
        with pytest.raises(HessrankError, match="label"):
            trained(tmp_path, data=(x, torch.full((48,), 7)), validation=(x, torch.full((48,), 7)))

    def test_a_loader_of_ones_own_is_taken_as_it_is(self, tmp_path: Path) -> None:
        x, y = points()
        loader = DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=12, shuffle=True)
        result = trained(tmp_path / "one", data=loader, epochs=2)
        trained(tmp_path / "two", data=loader, epochs=1)
        again = trained(tmp_path / "two", data=loader, epochs=2, resume=True)
        assert result.metrics["step"].tolist() == [4, 8]
        assert result.metrics.equals(again.metrics)  # shuffled by a generator that every epoch seeds


class TestOptions:
    def test_an_unknown_setting(self, tmp_path: Path) -> None:
        with pytest.raises(OptionError, match="no key named 'epoch'; nearest is 'epochs'"):
            trained(tmp_path, epoch=3)

    def test_a_tap_that_is_not_there(self, tmp_path: Path) -> None:
        policy = FOUR_BITS | {"distill_config": ["inner.relu_dup2"], "distill_coeff": [1.0]}
        for kind in (policy, {"distill_config": ["inner.relu_dup2"], "distill_coeff": [1.0]}):
            with pytest.raises(
                HessrankError, match=r"no layer named 'inner.relu_dup2'; nearest is 'inner.relu_dup1'"
            ):
                trained(tmp_path, kind)

    def test_an_unknown_distillation_loss(self, tmp_path: Path) -> None:
        with pytest.raises(UnknownNameError, match="no distillation loss named 'mes'; nearest is 'mse'"):
            trained(tmp_path, distill_loss="mes")

    def test_a_teacher_without_the_layer(self, tmp_path: Path) -> None:
        with pytest.raises(HessrankError, match="no layer named 'relu'"):
            trained(tmp_path, teacher=nn.Sequential(nn.Linear(6, 3)))

    def test_a_teacher_of_another_size(self, tmp_path: Path) -> None:
        class Wide(Net):
            def __init__(self) -> None:
                super().__init__()
                self.first = nn.Linear(6, 8)
                self.fold = nn.Unflatten(1, (2, 4))
                self.unfold = nn.Flatten()

            def forward(self, x: Tensor) -> Tensor:
                return self.last(self.inner(self.unfold(self.relu(self.fold(self.first(x))))))

        with pytest.raises(LossError, match=r"layer 'relu': .*1×8.*1×2×4"):
            trained(tmp_path, teacher=Wide())

    def test_a_quantized_model_is_not_quantized_again(self, tmp_path: Path) -> None:
        from hessrank.quant.policy import Policy

        with pytest.raises(ModelError, match="quantized already"):
            trained(tmp_path, model=prepare(network(), Policy.of(FOUR_BITS), points()[0]))

    def test_an_unknown_loss_and_metric(self, tmp_path: Path) -> None:
        with pytest.raises(UnknownNameError, match="no loss named 'cross-entrpy'; nearest is 'cross-entropy'"):
            trained(tmp_path, loss="cross-entrpy")
        with pytest.raises(UnknownNameError, match="no metric named 'acc'"):
            trained(tmp_path, monitor="acc")

    def test_a_folder_that_cannot_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(HessrankError, match="the folder cannot be made"):
            trained(tmp_path / "file" / "run")


class TestDevices:
    def test_no_gpu_falls_back_to_the_cpu_and_says_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        found = choose_devices([3], 1)
        assert (found.accelerator, found.devices) == ("cpu", 1)
        assert found.note == "gpu_id 3: there is no GPU here: the CPU is taken"
        assert choose_devices([], 2) == Devices("cpu", 2)

    def test_gpus_by_number(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
        assert choose_devices([3], 1) == Devices("gpu", [3])
        assert choose_devices([3], 1).first == torch.device("cuda", 3)
        assert choose_devices([], 2) == Devices("gpu", 2)
        with pytest.raises(OptionError, match="gpu_id 4: this machine has the GPUs 0 to 3"):
            choose_devices([4], 1)


def test_everything_is_left_as_it_was(tmp_path: Path) -> None:
    """The user's model and teacher, the random generators, Lightning's loggers, threads and all."""
    model, teacher = network().train(), network()
    before, teachers = state(model), state(teacher)
    generators = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    level, handler = logging.getLogger("lightning.pytorch").level, signal.getsignal(signal.SIGINT)
    trained(tmp_path, HINTED, model, teacher=teacher)
    assert not changes(before, state(model))
    assert not changes(teachers, state(teacher))
    assert torch.equal(torch.get_rng_state(), generators[0])
    assert np.array_equal(np.random.get_state()[1], generators[1])
    assert random.getstate() == generators[2]
    assert logging.getLogger("lightning.pytorch").level == level
    assert signal.getsignal(signal.SIGINT) is handler


def test_after_an_error_too(tmp_path: Path) -> None:
    model = network().train()
    before = state(model)

    def stop(stage: str, done: int, total: int) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        trained(tmp_path, HINTED, model, progress=stop)
    assert not changes(before, state(model))


def test_ctrl_c_is_a_keyboard_interrupt_and_can_go_on(tmp_path: Path) -> None:
    def stop(stage: str, done: int, total: int) -> None:
        if done == 9:
            raise KeyboardInterrupt

    handler = signal.getsignal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path, epochs=3, progress=stop)
    assert signal.getsignal(signal.SIGINT) is handler
    assert [path.name for path in tmp_path.glob("last*")] == ["last-epoch0001.ckpt"]
    assert len(trained(tmp_path, epochs=3, resume=True).metrics) == 3


def test_frozen_layers_stay_frozen(tmp_path: Path) -> None:
    model = network()
    model.first.requires_grad_(False)
    for name, policy in {"quantized": HINTED, "float": None}.items():
        trained(tmp_path / name, policy, model, epochs=1)
        state = last_state(tmp_path / name)
        assert torch.equal(state["first.weight"], model.first.weight)
        assert not torch.equal(state["last.weight"], model.last.weight)


def test_samples_that_come_one_after_the_other(tmp_path: Path) -> None:
    class Stream(IterableDataset[Any]):
        def __iter__(self) -> Any:
            return iter(list(zip(*points(), strict=True)))

    assert trained(tmp_path, data=Stream(), epochs=1).metrics["step"].tolist() == [6]


def test_a_teacher_that_does_nothing_is_said(tmp_path: Path) -> None:
    said: list[str] = []
    trained(tmp_path, FOUR_BITS, teacher=network(), epochs=0, say=said.append)
    assert "note: the teacher does nothing: the policy distills no layer" in said


def test_more_epochs_than_wanted_are_there(tmp_path: Path) -> None:
    trained(tmp_path, epochs=2)
    with pytest.raises(OptionError, match="2 epochs are trained already, epochs is 1"):
        trained(tmp_path, epochs=1, resume=True)


def test_threads_are_set_and_set_back(tmp_path: Path) -> None:
    seen = []
    trained(tmp_path, epochs=1, threads=2, progress=lambda *_: seen.append(torch.get_num_threads()))
    assert set(seen) == {2}
    assert torch.get_num_threads() == 1


def test_half_precision(tmp_path: Path) -> None:
    exact = trained(tmp_path / "32", epochs=1).metrics["train/loss"].iloc[0]
    rounded = trained(tmp_path / "bf16", epochs=1, precision="bf16").metrics["train/loss"].iloc[0]
    assert rounded != exact
    assert rounded == pytest.approx(exact, rel=0.02)
    with pytest.raises(OptionError, match="precision 16 needs a GPU"):
        trained(tmp_path / "16", precision="16")


class TestFrozen:
    def test_batch_norms_whose_weights_are_frozen_keep_their_statistics(self, tmp_path: Path) -> None:
        for name, policy in {"quantized": FOUR_BITS, "float": None}.items():
            model = network(norm=True)
            model.norm.requires_grad_(False)
            trained(tmp_path / name, policy, model, epochs=1)
            state = last_state(tmp_path / name)
            (mean,) = (value for key, value in state.items() if key.endswith("running_mean"))
            assert bool((mean == 0).all())

    def test_quantizers_of_frozen_weights_are_frozen(self, tmp_path: Path) -> None:
        model = network()
        model.first.requires_grad_(False)
        lsq = {"extra_qconfig_dict": {"w_fakequantize": "lsq"}}
        trained(tmp_path, lsq, model, epochs=1)
        state = last_state(tmp_path)
        assert bool((state["first.weight_quantizer.log_gain"] == 0).all())
        assert not bool((state["last.weight_quantizer.log_gain"] == 0).all())

    def test_nothing_left_to_train(self, tmp_path: Path) -> None:
        for name, policy in {"quantized": FOUR_BITS, "float": None}.items():
            model = network()
            model.requires_grad_(False)
            with pytest.raises(ModelError, match="nothing to train: all weights"):
                trained(tmp_path / name, policy, model)


class TestRefused:
    """What would train on nothing, or end in a traceback."""

    def test_no_loss_is_left(self, tmp_path: Path) -> None:
        with pytest.raises(OptionError, match="task_coeff is 0 and nothing is to be distilled"):
            trained(tmp_path, FOUR_BITS, task_coeff=0.0)

    def test_half_precision_weights(self, tmp_path: Path) -> None:
        x, y = points()
        with pytest.raises(ModelError, match="weights in half precision do not train"):
            trained(tmp_path, None, network().half(), data=(x.half(), y), validation=(x.half(), y))

    def test_a_loss_of_each_sample(self, tmp_path: Path) -> None:
        with pytest.raises(LossError, match="the loss returned 8 values: it should return the mean over the batch"):
            trained(tmp_path, loss=nn.CrossEntropyLoss(reduction="none"))

    def test_a_loss_that_raises(self, tmp_path: Path) -> None:
        def broken(output: Tensor, target: Tensor) -> Tensor:
            raise ValueError("no\nway")

        with pytest.raises(LossError) as caught:
            trained(tmp_path, loss=broken)
        assert "raised ValueError: no" in one_line(caught)

    def test_a_metric_that_does_not_fit(self, tmp_path: Path) -> None:
        with pytest.raises(LossError) as caught:
            trained(tmp_path, metrics={"accuracy": MulticlassAccuracy(num_classes=2)})
        assert "the metric 'accuracy' raised" in one_line(caught)

    @pytest.mark.parametrize("metrics", [{"a": len}, MulticlassAccuracy(num_classes=3)], ids=["function", "bare"])
    def test_metrics_that_are_none(self, metrics: Any, tmp_path: Path) -> None:
        with pytest.raises(OptionError, match="torchmetrics"):
            trained(tmp_path, metrics=metrics)

    def test_a_policy_that_is_none(self, tmp_path: Path) -> None:
        with pytest.raises(OptionError, match="a list is no policy"):
            trained(tmp_path, [1])

    def test_a_batch_of_one_with_batch_norm(self, tmp_path: Path) -> None:
        with pytest.raises(HessrankError) as caught:
            trained(tmp_path, None, network(norm=True), batch_size=1)
        assert "more than 1 value per channel" in one_line(caught)


def test_what_stays_in_float_is_said(tmp_path: Path) -> None:
    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3, 6))

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.linear(x, self.weight)

    said: list[str] = []
    trained(tmp_path, FOUR_BITS, Bare(), epochs=0, say=said.append)
    assert any(line.startswith("note: 1 tensors stay in float (hessrank check says why): weight") for line in said)


def test_another_training_is_not_gone_on_with(tmp_path: Path) -> None:
    trained(tmp_path, epochs=1)
    x, y = points()
    other = network()
    nn.init.ones_(other.last.bias)
    for name, options in {
        "model": {"model": other},
        "data": {"data": (x + 1, y)},
        "validation": {"validation": (x + 1, y)},
        "loss": {"loss": "mse"},
        "teacher": {"teacher": other},
    }.items():
        with pytest.raises(HessrankError, match=rf"started with something else: (.*, )?{name}[,;]|mse"):
            trained(tmp_path, epochs=2, resume=True, **options)
    assert len(trained(tmp_path, epochs=2, resume=True).metrics) == 2


def test_helping_processes_write_to_the_same_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HESSRANK_RUN_FOLDER", raising=False)
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(OptionError, match="give all of them the folder"):
        shared_folder("net")
    monkeypatch.delenv("LOCAL_RANK")
    (tmp_path / "runs" / "net").mkdir(parents=True)
    assert shared_folder("net") == Path("runs/net-2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    (tmp_path / "runs" / "net-2").mkdir()
    assert shared_folder("net") == Path("runs/net-2")
