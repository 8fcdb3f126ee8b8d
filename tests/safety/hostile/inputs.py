"""Small valid files of every kind that a command reads: what a case then spoils."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from hessrank import Policy, save_checkpoint
from hessrank.distill.tasks.classification import DigitNet
from hessrank.quant.prepare import prepare

NETS = """
from torch import nn

def net():
    return nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3))
"""
RUN = """
task: classification
task_args: {samples: 8, size: 8}
data: photos
arch_args: {width: 2}
load_model: digits.pth
load_teacher_model: digits.pth
config_file_path: config.yaml
epochs: 1
batch_size: 4
learning_rate: 1e-3
optimizer: adam
calibration_samples: 2
threads: 1
pictures: 0
seed: 3
extra_quantizer_dict:
  special_layer:
    stem.conv: {weight: 8 per_channel_affine, activation: 8}
distill_config: [classifier]
distill_coeff: [0.7]
"""
CONFIG = """
extra_qconfig_dict:
  w_qscheme: {bit: 4, symmetry: false, per_channel: true, pot_scale: false}
  a_qscheme: {bit: 4}
"""
STUDY = """
base:
  task: classification
  data: photos
  task_args: {samples: 4, size: 8}
  load_model: digits.pth
  arch_args: {width: 2}
  batch_size: 4
  calibration_samples: 2
  threads: 1
  pictures: 0
  epochs: 0
ranking_samples: 1
seeds: [0]
policies:
  low: {strategy: uniform, base_bits: 4}
  by hand: {file: hand.yaml, base_bits: 4}
  ours: {strategy: budget, bits: [4, 8], bops_of: by hand}
experiments:
  float: {quant: false}
  ours: {policy: ours, distill: tail, coefficient: 0.1}
"""
NET = ("--arch", "nets.py:net")
FAST = ("--num-samples", "1", "--max-probes", "2", "--increase-probes", "2", "--bits", "4,8,10")


def make(folder: Path, run: Callable[[list[str], Path], int]) -> None:
    """Make every input in ``folder``.

    Args:
        folder: an empty one.
        run: runs a command of hessrank in a folder, for what hessrank itself makes, and returns its exit status.
    """
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        exec(compile(NETS, "nets.py", "exec"), scope := {"__name__": "nets"})
        net: nn.Module = scope["net"]()
        digits = DigitNet(width=2, classes=2)
    _write_networks(folder, net, digits)
    _write_data(folder, torch.randn(3, 3, 6, 6, generator=generator))
    for name, text in {"nets.py": NETS, "run.yaml": RUN, "config.yaml": CONFIG, "study.yaml": STUDY}.items():
        (folder / name).write_text(text)
    (folder / "hand.yaml").write_text("extra_quantizer_dict: {special_layer: {stem.conv: {weight: 8}}}\n")
    latencies = [f"{layer},{bits},{bits / 4}" for layer in ("0", "3") for bits in (4, 8)]
    (folder / "latency.csv").write_text("\n".join(["layer,bits,latency", *latencies]) + "\n")
    for command in (
        ["rank", "state.pth", *NET, "--data", "xy.npz", *FAST, "--out", "ranking.csv"],
        ["rank", "state.pth", *NET, "--data", "x.npy", *FAST, "--seed", "1", "--out", "second.csv"],
        ["policy", "ranking.csv", "--out", "policy.yaml"],
        ["train", "run.yaml"],
        ["study", "study.yaml"],
    ):
        status = run(command, folder)
        if status:
            raise RuntimeError(f"{folder}: hessrank {' '.join(command)}: exit status {status}")
    (last,) = (folder / "runs" / "run").glob("last-*.ckpt")
    shutil.copy(last, folder / "trained.ckpt")
    prepared = prepare(net, Policy.read(folder / "policy.yaml"), torch.randn(1, 3, 6, 6, generator=generator))
    torch.save(prepared.state_dict(), folder / "quantized.pth")
    (folder / "occupied").mkdir()
    (folder / "occupied" / "mine.txt").write_text("mine\n")
    os.mkfifo(folder / "pipe.csv")
    (folder / "loop.csv").symlink_to("loop.csv")
    (folder / "null.csv").symlink_to(os.devnull)


def _write_networks(folder: Path, net: nn.Module, digits: nn.Module) -> None:
    torch.save(net.state_dict(), folder / "state.pth")
    save_file(net.state_dict(), folder / "state.safetensors")
    torch.save(digits.state_dict(), folder / "digits.pth")
    arch, arguments = f"{DigitNet.__module__}:{DigitNet.__qualname__}", {"width": 2, "classes": 2}
    inputs = torch.linspace(-1, 1, 128).reshape(2, 1, 8, 8)
    save_checkpoint(
        folder / "whole.pth",
        digits,
        arch=arch,
        arch_args=arguments,
        input_shape=(1, 8, 8),
        inputs=inputs,
    )


def _write_data(folder: Path, x: torch.Tensor) -> None:
    labels = torch.arange(len(x)) % 3
    np.save(folder / "x.npy", x.numpy())
    np.savez(folder / "xy.npz", input=x.numpy(), target=labels.numpy())
    torch.save({"input": x, "target": labels}, folder / "x.pt")
    save_file({"input": x, "target": labels}, folder / "x.safetensors")
    (folder / "images").mkdir()
    for place in range(2):
        _picture(place, 3, 6).save(folder / "images" / f"{place}.png")
    for kind in ("train", "val"):
        for place, name in enumerate(("round", "square")):
            (folder / "photos" / kind / name).mkdir(parents=True)
            for picture in range(2):
                _picture(4 * place + picture, 1, 8).save(folder / "photos" / kind / name / f"{picture}.png")


def _picture(seed: int, channels: int, size: int) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (size, size, channels), dtype=np.uint8)
    return Image.fromarray(values.squeeze())
