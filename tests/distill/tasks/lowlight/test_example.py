"""The shipped checkpoint: readable, and as good as its own record and the README say."""

from __future__ import annotations

import re

import pytest
import torch
from helpers.places import ROOT

from hessrank.distill.tasks.lowlight import LowLight, held_out, psnr_8bit
from hessrank.models import load_model

FOLDER = ROOT / "examples" / "lowlight"
MARGIN = {"rgb": 9.0, "mono": 2.9}  # dB over the naive development, on every held-out photograph


@pytest.fixture(scope="module")
def saved():
    return torch.load(FOLDER / "model.pth", weights_only=True)


@pytest.fixture(scope="module")
def figures(saved):
    torch.set_num_threads(1)
    network = LowLight(**saved["arch_args"])
    network.load_state_dict(saved["model"])
    reached = {}
    metadata = saved["metadata"]
    for night in held_out(ratio=metadata["ratio"], seed=metadata["seed"]):
        with torch.no_grad():
            mono, rgb = network.eval()(night.raw[None])
        reached[f"psnr_mono_{night.name}"] = psnr_8bit(mono[0], night.mono)
        reached[f"psnr_rgb_{night.name}"] = psnr_8bit(rgb[0], night.rgb)
        reached[f"naive_psnr_mono_{night.name}"] = psnr_8bit(night.naive_mono, night.mono)
        reached[f"naive_psnr_rgb_{night.name}"] = psnr_8bit(night.naive_rgb, night.rgb)
    return reached


def test_format(saved):
    assert list(saved) == ["hessrank", "arch", "arch_args", "input_shape", "inputs", "metadata", "model"]
    assert saved["hessrank"] == 1
    assert saved["inputs"].shape == (24, *saved["input_shape"]) == (24, 1, 96, 96)
    assert saved["inputs"].dtype == torch.float16
    assert all(type(value) in (str, int, float) for value in saved["metadata"].values())
    assert (FOLDER / "model.pth").stat().st_size < 5_000_000


def test_command_names_no_machine(saved):
    assert re.fullmatch(r"python examples/lowlight/train\.py( --\w+ [\w.]+)+", saved["metadata"]["command"])


def test_inputs_are_squares_of_the_held_out_nights_in_phase(saved):
    metadata = saved["metadata"]
    nights = held_out(ratio=metadata["ratio"], seed=metadata["seed"])
    for i, square in enumerate(saved["inputs"]):
        raw = nights[i // 12].raw.half()[0]
        places = [
            (top, left)
            for top in range(0, raw.shape[0] - 95, 2)
            for left in range(0, raw.shape[1] - 95, 2)
            if torch.equal(raw[top, left : left + 8], square[0, 0, :8])
        ]
        assert any(torch.equal(raw[t : t + 96, c : c + 96], square[0]) for t, c in places)


def test_loads_without_arch():
    model = load_model(FOLDER / "model.pth").model
    assert isinstance(model, LowLight)


@pytest.mark.parametrize("what", ["rgb", "mono"])
@pytest.mark.parametrize("name", ["coffee", "chelsea"])
@pytest.mark.parametrize("who", ["", "naive_"])
def test_recorded_psnr_is_reproduced(saved, figures, who, what, name):
    key = f"{who}psnr_{what}_{name}"
    assert figures[key] == pytest.approx(saved["metadata"][key], abs=0.02)


@pytest.mark.parametrize("what", ["rgb", "mono"])
@pytest.mark.parametrize("name", ["coffee", "chelsea"])
def test_naive_development_is_beaten(figures, what, name):
    assert figures[f"psnr_{what}_{name}"] > figures[f"naive_psnr_{what}_{name}"] + MARGIN[what]


@pytest.mark.parametrize("what", ["rgb", "mono"])
@pytest.mark.parametrize("name", ["coffee", "chelsea"])
def test_readme_tells_the_record(saved, what, name):
    naive, reached = (saved["metadata"][f"{who}psnr_{what}_{name}"] for who in ("naive_", ""))
    assert f"| {name} | {what} | {naive:.2f} | {reached:.2f} |" in (FOLDER / "README.md").read_text()
