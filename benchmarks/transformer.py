"""Small GELU transformers that have learned scikit-learn's digits: curved everywhere, and trained."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

PATCHES, PIXELS = 16, 4  # 8×8 pixels in patches of 2×2
_TRAINED_ON = 1500


class Block(nn.Module):
    """Self-attention and an MLP, each behind a layer norm and beside a shortcut (Xiong et al. 2020)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q, self.k, self.v, self.proj = (nn.Linear(width, width) for _ in range(4))
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.gelu = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        """Map B×T×width to B×T×width."""
        h = self.norm1(x)
        size, length, width = h.shape
        q, k, v = (m(h).view(size, length, self.heads, -1).transpose(1, 2) for m in (self.q, self.k, self.v))
        weights = torch.softmax(q @ k.mT / math.sqrt(width // self.heads), -1)
        x = x + self.proj((weights @ v).transpose(1, 2).reshape(size, length, width))
        result: Tensor = x + self.fc2(self.gelu(self.fc1(self.norm2(x))))
        return result


class Transformer(nn.Module):
    """Patches of a digit to ten logits."""

    def __init__(self, blocks: int, width: int = 64, heads: int = 4) -> None:
        super().__init__()
        self.embed = nn.Linear(PIXELS, width)
        self.position = nn.Parameter(torch.randn(1, PATCHES, width) / 10)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(blocks)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Map patches B×16×4 to logits B×10."""
        logits: Tensor = self.head(self.norm(self.blocks(self.embed(x) + self.position)).mean(1))
        return logits


def patches() -> tuple[Tensor, Tensor]:
    """Return all digits as patches, N×16×4 in [0, 1], and their classes, in a fixed random order."""
    digits = load_digits()
    pictures = torch.tensor(digits.images / 16, dtype=torch.float32).reshape(-1, 4, 2, 4, 2)
    order = torch.randperm(len(pictures), generator=torch.Generator().manual_seed(0))
    return pictures.permute(0, 1, 3, 2, 4).reshape(-1, PATCHES, PIXELS)[order], torch.tensor(digits.target)[order]


def trained_transformer(blocks: int, steps: int = 600) -> tuple[nn.Module, Tensor, Tensor]:
    """Return a transformer of ``blocks`` blocks that has learned 1500 digits, and the 297 that it has not seen."""
    torch.manual_seed(0)
    model = Transformer(blocks)
    x, labels = patches()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for _ in range(steps):
        batch = torch.randint(0, _TRAINED_ON, (64,))
        optimizer.zero_grad()
        F.cross_entropy(model(x[batch]), labels[batch]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return model.eval(), x[_TRAINED_ON:], labels[_TRAINED_ON:]
