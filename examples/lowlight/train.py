"""Train a small low-light network on photographs taken again in a simulated night.

    python examples/lowlight/train.py

writes model.pth (a checkpoint that ``hessrank examples/lowlight/model.pth`` ranks) and heldout.png.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from hessrank.distill.tasks.lowlight import LowLight, Night, NightPhotographs, held_out, initialize, psnr_8bit
from hessrank.models import save_checkpoint

ARCH_ARGS = {"dbf_width": 4, "dble_width": 8}
CROP = 96
OPTIONS = {"steps": 4000, "batch": 8, "size": 64, "rate": 2e-3, "seed": 0, "ratio": 300.0}


def train(steps: int, batch: int, size: int, rate: float, seed: int) -> LowLight:
    """Minimize L1(mono) + L1(rgb) with Adam; the rate rises for a tenth of the steps, then falls."""
    torch.manual_seed(seed)
    network = LowLight(**ARCH_ARGS).apply(initialize)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    loader = DataLoader(NightPhotographs(steps * batch, size=size, seed=seed), batch_size=batch)
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
    for step, (raw, (mono, rgb)) in enumerate(loader, start=1):
        mono_out, rgb_out = network(raw.contiguous(memory_format=torch.channels_last))
        loss = F.l1_loss(mono_out, mono) + F.l1_loss(rgb_out, rgb)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)  # without it, some runs diverge at this rate
        optimizer.step()
        schedule.step()
        if step % 500 == 0:
            print(f"step {step:6d}  loss {loss.item():.4f}", flush=True)
    network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return network.eval()


@torch.no_grad()
def develop(network: LowLight, night: Night) -> tuple[Tensor, Tensor]:
    """Return the network's monochrome and color picture of one night, without the batch axis."""
    mono, rgb = network(night.raw[None])
    return mono[0], rgb[0]


def judge(network: LowLight, nights: list[Night]) -> dict[str, float]:
    """Return PSNRs in dB on 8-bit values, of the network and of the naive development."""
    figures = {}
    for night in nights:
        mono, rgb = develop(network, night)
        for who, pictures in {"": (mono, rgb), "naive_": (night.naive_mono, night.naive_rgb)}.items():
            for what, picture, target in zip(("mono", "rgb"), pictures, (night.mono, night.rgb), strict=True):
                figures[f"{who}psnr_{what}_{night.name}"] = round(psnr_8bit(picture, target), 2)
    return figures


def crops(nights: list[Night], each: int = 12) -> Tensor:
    """Return squares of the held-out RAWs, float16 N×1×96×96, none overlapping, spread over each picture."""
    squares = []
    for night in nights:
        tiles = night.raw[0].unfold(0, CROP, CROP).unfold(1, CROP, CROP).flatten(0, 1)  # CROP is even: Bayer phase
        squares.append(tiles[:: len(tiles) // each][:each, None])
    return torch.cat(squares).half()


def draw(network: LowLight, nights: list[Night], figures: dict[str, float], path: Path) -> None:
    """Draw input, naive development, network and target of each night side by side."""
    figure = Figure(figsize=(16, 5.6), layout="constrained")
    for row, night in zip(figure.subplots(len(nights), 4), nights, strict=True):
        name, rgb = night.name, develop(network, night)[1]
        pictures = {
            f"{name}: amplified RAW": night.raw.expand(3, -1, -1),
            f"naive, {figures[f'naive_psnr_rgb_{name}']:.1f} dB": night.naive_rgb,
            f"network, {figures[f'psnr_rgb_{name}']:.1f} dB": rgb.clamp(0, 1),
            "target": night.rgb,
        }
        for axes, (title, picture) in zip(row, pictures.items(), strict=True):
            axes.imshow(picture.permute(1, 2, 0).numpy())
            axes.set_title(title)
            axes.axis("off")
    figure.savefig(path, dpi=62)


def main() -> None:
    """Train, judge, draw, save."""
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    for option, value in OPTIONS.items():
        parser.add_argument(f"--{option}", type=type(value), default=value, help="number")
    parser.add_argument("--out", type=Path, default=Path("examples/lowlight"), help="folder to write to")
    options = parser.parse_args()
    torch.set_num_threads(1)  # a second thread gains little on squares this small
    network = train(options.steps, options.batch, options.size, options.rate, options.seed)
    nights = held_out(ratio=options.ratio, seed=options.seed)
    figures = judge(network, nights)
    for name, figure in figures.items():
        print(f"{name:24s} {figure:6.2f} dB")
    draw(network, nights, figures, options.out / "heldout.png")
    settings = {name: value for name, value in vars(options).items() if name != "out"}
    command = " ".join(["python examples/lowlight/train.py", *(f"--{n} {v}" for n, v in settings.items())])
    save_checkpoint(
        options.out / "model.pth",
        network,
        arch="hessrank.distill.tasks.lowlight:LowLight",
        arch_args=ARCH_ARGS,
        input_shape=(1, CROP, CROP),
        inputs=crops(nights),
        metadata={"command": command, "torch": str(torch.__version__), **settings, **figures},
    )


if __name__ == "__main__":
    main()
