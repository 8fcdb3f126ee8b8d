"""The low-light task: data by name and layout, options, loss, metrics, panels, weights."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.raw_files import save_dng
from torch.utils.data import DataLoader

from hessrank.distill.tasks.base import TASKS
from hessrank.distill.tasks.lowlight import (
    LowLight,
    LowLightTask,
    NightPhotographs,
    TrainingSquares,
    WholeFrames,
    held_out,
    psnr_8bit,
)
from hessrank.distill.tasks.lowlight.data.mcr_folders import MCR_LAYOUT
from hessrank.distill.tasks.lowlight.data.sid import SID_LAYOUT
from hessrank.errors import DataError, OptionError, UnknownNameError

HERE = Path()
SQUARES = {"patch": 32}


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip((one[0], *one[1]), (other[0], *other[1]), strict=True))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a small SID and a small MCR of ``.raw`` files."""
    pytest.importorskip("rawpy")
    root = tmp_path_factory.mktemp("data")
    counts = np.random.default_rng(0).integers(0, 4096, (64, 96), dtype=np.uint16)
    for name in ("short/00001_00_0.1s", "long/00001_00_10s", "short/20001_00_0.04s", "long/20001_00_10s"):
        path = root / "sid" / "Sony" / f"{name}.ARW"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_dng(path, counts)
    row = "./Sony/short/{0}_00_{1}s.ARW ./Sony/long/{0}_00_10s.ARW ISO200 F8\n"
    (root / "sid" / "Sony_train_list.txt").write_text(row.format("00001", "0.1"))
    (root / "sid" / "Sony_val_list.txt").write_text(row.format("20001", "0.04"))
    (root / "mcr").mkdir()
    for name in ("C00001_48mp_0x8_0x00ff", "C00001_48mp_0x8_0x2fff", "M00001_48mp_0x8_0x2fff"):
        np.full((1024, 1280), len(name), np.uint8).tofile(root / "mcr" / f"{name}.raw")
    return root


@pytest.fixture(scope="module")
def task():
    return LowLightTask(folder=HERE, seed=3)


def test_it_is_registered(task):
    assert TASKS.resolve("lowlight") is LowLightTask
    assert (task.monitor, task.mode, task.validation_batch_size) == ("psnr_rgb", "max", 1)
    assert task.monitor in task.metrics()


@pytest.mark.parametrize("data", [None, "photographs"])
def test_photographs_are_built_in(data):
    task = LowLightTask(data, folder=HERE, seed=3)
    training, validation = task.training_data(), task.validation_data()
    assert isinstance(training, NightPhotographs)
    assert (len(training), training.endless) == (800, True)
    assert same(training[5], NightPhotographs(800, size=64, seed=3)[5])
    nights = held_out(seed=3)
    assert len(validation) == len(nights) == 2
    assert all(same(validation[i], (night.raw, (night.mono, night.rgb))) for i, night in enumerate(nights))
    assert task.notes == (
        *(("no data named: the built-in ones",) if data is None else ()),
        "photographs inside scikit-image and scikit-learn, in a simulated night; held out: coffee, chelsea",
    )


def test_options_of_the_photographs():
    task = LowLightTask("photographs", folder=HERE, seed=1, patch=32, samples=7, ratio=100.0, pattern="RYYB")
    training = task.training_data()
    assert len(training) == 7
    assert same(training[9], NightPhotographs(1, size=32, seed=1, pattern="RYYB")[9])
    assert torch.equal(task.validation_data()[1][0], held_out(ratio=100.0, seed=1, pattern="RYYB")[1].raw)


@pytest.mark.parametrize("kind", [None, "sid", "mcr"])
@pytest.mark.parametrize("name", ["sid", "mcr"])
def test_data_sets_by_layout_or_kind(folder, name, kind):
    if kind not in (None, name):
        with pytest.raises(DataError, match=r"SID holds|MCR has"):
            LowLightTask(name, folder=folder, seed=0, kind=kind, **SQUARES)
        return
    task = LowLightTask(name, folder=folder, seed=0, kind=kind, samples=5, **SQUARES)
    training, validation = task.training_data(), task.validation_data()
    assert isinstance(training, TrainingSquares)
    assert isinstance(validation, WholeFrames)
    assert (len(training), len(validation)) == (5, 1)
    assert training[4][0].shape == (1, 32, 32)
    assert validation[0][0].shape == ((1, 64, 96) if name == "sid" else (1, 1024, 320))
    assert task.notes[0] == f"data set {name.upper()}: 1 pairs for training, 1 for validation"


def test_options_reach_the_data_sets(folder):
    task = LowLightTask(str(folder / "sid"), folder=HERE, seed=0, ratio=50.0, pattern="GBRG", **SQUARES)
    plain = LowLightTask("sid", folder=folder, seed=0, **SQUARES)
    raw, full = (one.validation_data()[0][0] for one in (task, plain))
    assert raw.shape == (1, 32, 96)  # 63 rows are left once it starts with GB
    dim = (full > 0) & (full < 1)
    assert dim.any()
    assert torch.allclose(raw[dim[:, 15:47]] * 5, full[:, 15:47][dim[:, 15:47]], rtol=1e-5)
    assert len(plain.training_data()) == 1


def test_the_test_list_judges_when_it_is_asked_for(folder):
    row = "./Sony/short/{0}_00_0.1s.ARW ./Sony/long/{0}_00_10s.ARW ISO200 F8\n"
    (folder / "sid" / "Sony_test_list.txt").write_text(2 * row.format("00001"))
    task = LowLightTask("sid", folder=folder, seed=0, split="test", **SQUARES)
    assert len(task.validation_data()) == 2
    assert len(LowLightTask("sid", folder=folder, seed=0, **SQUARES).validation_data()) == 1


def test_published_patch_is_the_default(folder):
    with pytest.raises(DataError, match="too few for squares of 512"):
        LowLightTask("sid", folder=folder, seed=0)
    assert LowLightTask("mcr", folder=folder, seed=0).training_data()[0][0].shape == (1, 512, 512)


@pytest.mark.parametrize(("name", "problem"), [("nowhere", "there is no such folder"), (".", "neither SID nor MCR")])
def test_neither_layout_shows_both(tmp_path, name, problem):
    with pytest.raises(DataError) as caught:
        LowLightTask(name, folder=tmp_path, seed=0)
    assert str(caught.value) == f"{tmp_path / name}: {problem}; SID has {SID_LAYOUT}; MCR has {MCR_LAYOUT}"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"patch": 48}, "patch is 48; it has to be a multiple of 32, at least 32"),
        ({"patch": 0}, "patch is 0"),
        ({"patch": "64"}, "patch is '64'"),
        ({"patch": 448}, "a photograph has 427 only"),
        ({"samples": 0}, "samples is 0; it has to be a whole number, at least 1"),
        ({"samples": 1.5}, "samples is 1.5"),
        ({"cache": -1}, "cache is -1; it has to be a whole number, at least 0"),
        ({"ratio": 0.5}, "ratio is 0.5; it has to be a number of at least 1"),
        ({"ratio": float("inf")}, "ratio is inf"),
        ({"ratio": float("nan")}, "ratio is nan"),
        ({"ratio": "300"}, "ratio is '300'"),
        ({"kind": "mcr"}, "kind is mcr, but data names no folder"),
        ({"kind": "photographs", "data": "x"}, "kind is photographs, which lie inside scikit-image"),
    ],
)
def test_wrong_options(options, words):
    with pytest.raises(OptionError) as caught:
        LowLightTask(**{"data": None, "folder": HERE, "seed": 0, **options})
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"pattern": "RGGX"}, "no color filter pattern named 'RGGX'; nearest is 'RGGB'"),
        ({"kind": "SIDD"}, "no kind of data named 'SIDD'; nearest is 'sid'"),
        ({"split": "train"}, "no split to judge with named 'train'; nearest is"),
    ],
)
def test_unknown_names(options, words):
    with pytest.raises(UnknownNameError, match=words):
        LowLightTask(folder=HERE, seed=0, **options)


def test_model_is_the_published_network(task):
    assert task.model is LowLight
    assert sum(parameter.numel() for parameter in task.model().parameters()) == 15_013_791
    small = task.model(dbf_width=2, dble_width=4)
    assert small.DBF.DBF_out.in_channels == 2


def test_initialize_draws_he_weights(task):
    network = task.model()
    torch.manual_seed(0)
    task.initialize(network)
    weight = network.DBLE.dual_conv6.Conv2.weight
    assert weight.std().item() == pytest.approx((2 / (1 + 0.2**2) / (256 * 9)) ** 0.5, rel=0.01)
    biases = [parameter for name, parameter in network.named_parameters() if name.endswith("bias")]
    assert biases
    assert all(not bias.any() for bias in biases)
    torch.manual_seed(0)
    again = task.model()
    torch.manual_seed(0)
    task.initialize(again)
    assert torch.equal(again.DBLE.dual_conv6.Conv2.weight, weight)


def test_loss_is_the_sum_of_both_means(task):
    output = (torch.full((2, 1, 4, 4), 0.5, requires_grad=True), torch.zeros(2, 3, 4, 4))
    target = (torch.zeros(2, 1, 4, 4), torch.full((2, 3, 4, 4), -0.25))
    loss = task.loss(output, target)
    assert loss.shape == ()
    assert loss.item() == 0.75
    loss.backward()
    assert torch.equal(output[0].grad, torch.full((2, 1, 4, 4), 1 / 32))


def test_a_batch_goes_through_network_loss_and_metrics(task):
    raw, target = next(iter(DataLoader(task.training_data(), batch_size=2)))
    network = task.model(dbf_width=2, dble_width=4).eval()
    with torch.no_grad():
        output = network(raw)
    assert 0 < float(task.loss(output, target)) < 10
    metrics = task.metrics()
    assert set(metrics) == {"psnr_mono", "psnr_rgb", "ssim_mono", "ssim_rgb"}
    metrics["psnr_rgb"].update(output, target)
    expected = np.mean([psnr_8bit(output[1][i], target[1][i]) for i in range(2)])
    assert float(metrics["psnr_rgb"].compute()) == pytest.approx(expected)


def test_training_data_gives_the_same_items_in_two_processes(task):
    batches = [list(DataLoader(task.training_data(), 2, sampler=range(900, 904), num_workers=n)) for n in (0, 2)]
    for one, other in zip(*batches, strict=True):
        assert same(one, other)


def test_panels(task):
    truth = (torch.rand(1, 1, 8, 10), torch.rand(1, 3, 8, 10))
    raw = torch.rand(1, 1, 8, 10)
    good, bad = truth[1] + 0.01, truth[1] * 3 - 1
    panels = task.panels((raw,), truth, {"float": (truth[0], good), "quantized": (truth[0], bad)})
    titles = [
        f"{name}, {psnr_8bit(rgb[0], truth[1][0]):.1f} dB" for name, rgb in (("float", good), ("quantized", bad))
    ]
    assert list(panels) == ["input", *titles, "target"]
    assert titles[0] != titles[1].replace("quantized", "float")
    shapes = [picture.shape for picture in panels.values()]
    assert shapes == [(8, 10), (8, 10, 3), (8, 10, 3), (8, 10, 3)]
    assert all(picture.min() >= 0 and picture.max() <= 1 for picture in panels.values())
    np.testing.assert_array_equal(panels["input"], raw[0, 0])
    np.testing.assert_array_equal(panels["target"][2, 3], truth[1][0, :, 2, 3])
    np.testing.assert_array_equal(panels[titles[1]], bad[0].clamp(0, 1).permute(1, 2, 0))


def test_only_the_task_imports_torchmetrics():
    program = """if True:
        import sys
        from hessrank.distill.tasks.lowlight import LowLight, sid_pairs
        print("torchmetrics" in sys.modules)
        from hessrank.distill.tasks.lowlight import LowLightTask
        print("torchmetrics" in sys.modules, "skimage" in sys.modules, "rawpy" in sys.modules)"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True", "False", "False"]


def test_unknown_attribute_of_the_package():
    import hessrank.distill.tasks.lowlight as package

    assert all(hasattr(package, name) for name in package.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'LowLigth'"):
        package.LowLigth  # noqa: B018
