"""Small copies of the networks that people quantize: one block of each kind, seeded weights, data to go with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from helpers.zoo import SAMPLES, images, noise, tokens
from torch import Tensor, nn

Maker = Callable[[], nn.Module]
FIELD: dict[str, tuple[Maker, Callable[[], Any]]] = {}


def network(data: Callable[[], Any]) -> Callable[[Maker], Maker]:
    """Put a network into ``FIELD`` under its own name, with its data."""

    def register(make: Maker) -> Maker:
        FIELD[make.__name__] = make, data
        return make

    return register


def build(name: str) -> tuple[nn.Module, Any]:
    """Return a network of ``FIELD`` in evaluation mode, the same every time, and its data."""
    make, data = FIELD[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = make().eval()
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                _as_trained(module)
    return model, data()


@torch.no_grad()
def _as_trained(norm: nn.modules.batchnorm._BatchNorm) -> None:
    norm.running_mean.normal_(0, 0.3)
    norm.running_var.uniform_(0.5, 1.5)
    norm.weight.normal_(1, 0.3)
    norm.bias.normal_(0, 0.2)


def pictures() -> Tensor:
    return noise(SAMPLES, 3, 8, 8)


class SqueezeAndExcite(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.pool, self.down, self.relu = nn.AdaptiveAvgPool2d(1), nn.Conv2d(width, 2, 1), nn.ReLU()
        self.up, self.gate = nn.Conv2d(2, width, 1), nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.up(self.relu(self.down(self.pool(x)))))


class InvertedResidual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        inner = 2 * width
        self.block = nn.Sequential(
            nn.Conv2d(width, inner, 1, bias=False),
            nn.BatchNorm2d(inner),
            nn.Hardswish(inplace=True),
            nn.Conv2d(inner, inner, 3, padding=1, groups=inner, bias=False),
            nn.BatchNorm2d(inner),
            nn.Hardswish(inplace=True),
            SqueezeAndExcite(inner),
            nn.Conv2d(inner, width, 1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x)


@network(pictures)
def mobilenet() -> nn.Module:
    stem = (nn.Conv2d(3, 4, 3, 2, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU6(inplace=True))
    return nn.Sequential(
        *stem, InvertedResidual(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(4, 3)
    )


class DenseLayer(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.relu = nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        self.conv = nn.Conv2d(width, 2, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.conv(self.relu(self.norm(x)))], 1)


@network(images)
def densenet() -> nn.Module:
    stem = nn.Conv2d(3, 4, 3, padding=1)
    return nn.Sequential(stem, DenseLayer(4), DenseLayer(6), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(72, 3))


@network(lambda: noise(SAMPLES, 1, 64))
def audio() -> nn.Module:
    head = (nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2))
    return nn.Sequential(nn.Conv1d(1, 4, 9, 2), nn.BatchNorm1d(4), nn.ELU(), nn.MaxPool1d(2), *head)


@network(lambda: noise(SAMPLES, 1, 4, 6, 6))
def video() -> nn.Module:
    return nn.Sequential(nn.Conv3d(1, 3, 3, padding=1), nn.BatchNorm3d(3), nn.ReLU(), nn.MaxPool3d(2), nn.Flatten())


@network(lambda: noise(SAMPLES, 5))
class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.first = nn.Linear(5, 16), nn.BatchNorm2d(4)
        self.up, self.norm = nn.ConvTranspose2d(4, 4, 4, 2, 1, bias=False), nn.BatchNorm2d(4)
        self.relu, self.last = nn.ReLU(True), nn.ConvTranspose2d(4, 1, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = self.first(self.fc(z).view(-1, 4, 2, 2))
        return torch.tanh(self.last(self.relu(self.norm(self.up(x)))))


@network(images)
def generator() -> nn.Module:
    return nn.Sequential(
        nn.ReflectionPad2d(1),
        nn.Conv2d(3, 4, 3),
        nn.InstanceNorm2d(4, affine=True),
        nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(4, 4, 3, padding=1),
        nn.GroupNorm(2, 4),
        nn.SiLU(inplace=True),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(4, 3, 3, padding=1),
    )


@network(tokens)
class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 4, padding_idx=0)
        self.gru, self.head = nn.GRU(4, 3, 2, batch_first=True, bidirectional=True), nn.Linear(6, 2)

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        states, _ = self.gru(self.embedding(ids))
        return self.head(states[:, -1]), states


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.qkv, self.proj = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.norm2, self.up, self.act = nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU()
        self.down, self.drop = nn.Linear(2 * width, width), nn.Dropout(0.1)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        batch, length, width = x.shape
        heads = self.qkv(self.norm1(x)).reshape(batch, length, 3, 2, width // 2)
        q, k, v = heads.permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).reshape(batch, length, width)
        x = x + self.drop(self.proj(y))
        return x + self.drop(self.down(self.act(self.up(self.norm2(x)))))


@network(pictures)
class VisionTransformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch, self.block = nn.Conv2d(3, 8, 4, 4), Block(8)
        self.token, self.place = nn.Parameter(noise(1, 1, 8)), nn.Parameter(noise(1, 5, 8, seed=2))
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.place
        return self.head(self.norm(self.block(x))[:, 0])


def masked() -> dict[str, Tensor]:
    mask = torch.ones(SAMPLES, 5, dtype=torch.int64)
    mask[1, 3:] = 0
    return {"input_ids": tokens(), "attention_mask": mask}


@network(masked)
class LanguageModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.places, self.block = nn.Embedding(11, 8), nn.Embedding(5, 8), Block(8)
        self.decoder = nn.Linear(8, 11, bias=False)
        self.decoder.weight = self.words.weight

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        x = self.words(input_ids) + self.places(torch.arange(5))
        x = self.block(x, attention_mask[:, None, None].bool())
        return {"logits": self.decoder(x), "hidden": x}


@network(lambda: (noise(SAMPLES, 1, 5, 5), noise(SAMPLES, 1, 5, 5, seed=2)))
class Siamese(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.relu = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(inplace=True)
        self.out = nn.Linear(27, 1)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        one, other = (self.relu(self.norm(self.conv(x))).flatten(1) for x in (left, right))
        return self.out((one - other).abs())


@network(pictures)
class SuperResolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.prelu, self.last = nn.Conv2d(3, 4, 3, padding=1), nn.PReLU(4), nn.Conv2d(4, 12, 3, padding=1)
        self.shuffle = nn.PixelShuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.shuffle(self.last(self.prelu(self.first(x)))) + F.interpolate(x, scale_factor=2, mode="bilinear")


class HandWrittenNorm(nn.Module):
    """Layer norm over channels, as ConvNeXt and NAFNet write it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width, 1, 1)), nn.Parameter(torch.zeros(width, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True)
        variance = (x - mean).pow(2).mean(1, keepdim=True)
        return self.weight * ((x - mean) / torch.sqrt(variance + 1e-6)) + self.bias


@network(lambda: pictures() * torch.tensor([1.0, 0.1, 0.01])[:, None, None, None])
class Restoration(nn.Module):
    """A block of NAFNet: hand-written norm, gate by product, channel attention."""

    def __init__(self) -> None:
        super().__init__()
        self.intro, self.norm, self.expand = nn.Conv2d(3, 4, 3, padding=1), HandWrittenNorm(4), nn.Conv2d(4, 8, 1)
        self.pool, self.mix, self.out = nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.intro(x)
        left, right = self.expand(self.norm(y)).chunk(2, 1)
        gated = left * right
        return x + self.out(y + gated * self.mix(self.pool(gated)))


@network(pictures)
class Constants(nn.Module):
    """Makes tensors of numbers in forward, which torch.fx lays down in the model."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.out = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)
        self.register_buffer("mean", torch.tensor([0.1, 0.2, 0.3])[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv((x - self.mean) / 0.5)
        return self.out(torch.einsum("bchw,dc->bdhw", y, torch.eye(4)) + torch.tensor([0.5]))


@network(images)
class WritesInPlace(nn.Module):
    """Goes on with the old name of what was written to in place."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        y.mul_(2.0)
        y += x
        z = self.last(y)
        z.mul_(0.5)
        F.silu(z, inplace=True)
        return z
