"""Two small networks that learn scikit-learn's digits (8×8 pixels; needs the extra ``lowlight``) in seconds."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn


def classifier() -> nn.Module:
    """Return 64 pixels → 10 logits, with max pooling between two convolutions."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10),
    )  # fmt: skip


def denoiser() -> nn.Module:
    """Return picture → picture: three convolutions."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.LeakyReLU(0.2),
        nn.Conv2d(8, 8, 3, padding=1), nn.LeakyReLU(0.2), nn.Conv2d(8, 1, 3, padding=1),
    )  # fmt: skip


def learn(model: nn.Module, loss: Callable[[Tensor, Tensor, Tensor], Tensor], steps: int) -> tuple[nn.Module, Tensor]:
    """Train on all digits with Adam; return the model and the digits, 1797×1×8×8."""
    digits = load_digits()
    pictures = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    labels = torch.tensor(digits.target)
    torch.manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(steps):
        pick = torch.randint(len(labels), (64,))
        optimizer.zero_grad()
        loss(model(pictures[pick]), labels[pick], pictures[pick]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return model.eval(), pictures


def trained_networks(steps: int) -> list[tuple[str, nn.Module, Tensor]]:
    """Train both networks; return name, network and all digits of each."""
    logits = learn(classifier(), lambda out, label, _: F.cross_entropy(out, label), steps)
    pictures = learn(denoiser(), lambda out, _, picture: F.mse_loss(out, picture), steps)
    return [("classifier", *logits), ("denoiser", *pictures)]
