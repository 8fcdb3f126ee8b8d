"""Small awkward models, each with data, the layers it has or the error it deserves.

``ZOO`` maps a name to an :class:`Animal`. All are seeded, take three samples and run in milliseconds.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import register_pytree_node, tree_leaves

from hessrank.errors import DataError, HessrankError, LossError, ModelError

SAMPLES = 3


@dataclass(frozen=True)
class Animal:
    """A model and what is to be expected of it.

    Attributes:
        name: its name in ``ZOO``.
        make: builds the model, under a fixed seed.
        data: builds the data.
        layers: names of the layers in the order of execution; empty for an error.
        error: type and a pattern of the error; None if it can be ranked.
        traced: whether torch.fx can trace it.
        apart: whether the samples of a batch stay apart.
        notes: patterns of the warnings that must come, beside the usual ones.
    """

    name: str
    make: Callable[[], nn.Module]
    data: Callable[[], Any]
    layers: tuple[str, ...] = ()
    error: tuple[type[HessrankError], str] | None = None
    traced: bool = True
    apart: bool = True
    notes: tuple[str, ...] = ()

    def build(self) -> nn.Module:
        """Return the model, the same every time, in train mode; global random numbers are left alone."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return self.make()


ZOO: dict[str, Animal] = {}
_Maker = Callable[[], nn.Module]


def animal(data: Callable[[], Any], layers: str = "", **facts: Any) -> Callable[[_Maker], _Maker]:
    """Put a model into the zoo, under the snake-cased name of its class or function; ``layers`` by blanks."""

    def register(make: _Maker) -> _Maker:
        name = "".join(f"_{c.lower()}" if c.isupper() else c for c in make.__name__).strip("_")
        assert name not in ZOO, name
        ZOO[name] = Animal(name, make, data, tuple(layers.split()), **facts)
        return make

    return register


def noise(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return normal random numbers, always the same for a shape and seed."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def images() -> Tensor:
    return noise(SAMPLES, 3, 6, 6)


def vectors() -> Tensor:
    return noise(SAMPLES, 4)


def sequences() -> Tensor:
    return noise(SAMPLES, 5, 4)


def tokens() -> Tensor:
    return torch.randint(0, 11, (SAMPLES, 5), generator=torch.Generator().manual_seed(1))


# Modules used more than once, names that collide


@animal(images, "x conv1 relu conv2 relu_dup1")
class Reused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.relu = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 3), nn.LeakyReLU(0.2)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.conv2(self.relu(self.conv1(x))))


@animal(vectors, "x step step_dup1 step_dup2", notes=("step, step_dup1, step_dup2 share one weight",))
class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.step = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            x = self.step(x)
        return x


@animal(vectors, "x relu fc relu_dup2 relu_dup1")
class NameOfADuplicateTaken(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.relu, self.fc, self.relu_dup1 = nn.ReLU(), nn.Linear(4, 4), nn.Tanh()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu_dup1(self.relu(self.fc(self.relu(x))))


@animal(vectors, "x down relu up", notes=("down, up share one weight",))
class TiedLinear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.relu, self.up = nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)
        self.up.weight = self.down.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.relu(self.down(x)))


@animal(tokens, "embedding mix decoder", notes=("embedding, decoder share one weight",))
class TiedEmbedding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.mix = nn.Embedding(11, 4), nn.Linear(4, 4)
        self.decoder = nn.Linear(4, 11, bias=False)
        self.decoder.weight = self.embedding.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.decoder(self.mix(self.embedding(ids)))


@animal(vectors, "x first fc first_dup1", notes=("first, first_dup1 share one weight",))
class OneModuleTwoNames(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.fc = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second = self.first

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.fc(self.first(x)))


@animal(vectors, "x add relu_1 relu add_1 cat")
class NamedLikeFunctions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.add, self.relu_1 = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu_1(self.add(x))
        return torch.cat([F.relu(y) + x, x], 1)


@animal(images, "x Conv1 conv1 Block.conv block.Conv")
class SnakeCased(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.Conv1, self.conv1 = nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 1)
        self.Block = nn.Sequential(OrderedDict(conv=nn.Conv2d(3, 3, 1)))
        self.block = nn.Sequential(OrderedDict(Conv=nn.Conv2d(3, 3, 1)))

    def forward(self, x: Tensor) -> Tensor:
        return self.block(self.Block(self.conv1(self.Conv1(x))))


@animal(vectors, "x input output")
class ModulesNamedInputAndOutput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.input, self.output = nn.Linear(4, 3), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.input(x))


# What writes in place


@animal(images, "x conv relu last")
class InplaceActivation(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu, self.last = nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.relu(self.conv(x)))


@animal(images, "x conv add last add_1")
class InplaceResidual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        y += x
        z = self.last(y)
        z += y
        return z


@animal(images, "x conv last", notes=("getitem, relu_ write into something else in place",))
class InplaceOnView(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        y[:, :2].relu_()
        return self.last(y)


@animal(vectors, "x relu_ fc")
class InplaceOnInput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.relu_(x))


@animal(tokens, "embedding fc")
class InplaceOnTokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.fc = nn.Embedding(12, 4), nn.Linear(4, 2)

    def forward(self, ids: Tensor) -> Tensor:
        return self.fc(self.embedding(ids.add_(1)))


# Arguments


def named_vectors() -> dict[str, Tensor]:
    return {"a": noise(SAMPLES, 4), "b": noise(SAMPLES, 3, seed=2)}


@animal(named_vectors, "batch['a'] batch['b'] left right add")
class DictInput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(4, 2), nn.Linear(3, 2)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return self.left(batch["a"]) + self.right(batch["b"])


@animal(named_vectors, "a b left right add")
class KeywordOnly(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(4, 2), nn.Linear(3, 2)

    def forward(self, *, a: Tensor, b: Tensor) -> Tensor:
        return self.left(a) + self.right(b)


class MaskedSum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(4, 2), nn.Linear(3, 2)

    def forward(self, a: Tensor, b: Tensor, mask: Tensor | None = None) -> Tensor:
        y = self.left(a) + self.right(b)
        if mask is not None:
            y = y.masked_fill(mask, 0.0)
        return y


@animal(lambda: (noise(SAMPLES, 4), noise(SAMPLES, 3)), "a b left right add")
def mask_left_out() -> nn.Module:
    return MaskedSum()


@animal(
    lambda: (noise(SAMPLES, 4), noise(SAMPLES, 3), torch.tensor([[True, False]] * SAMPLES)),
    "a b left right add masked_fill",
)
def mask_given() -> nn.Module:
    return MaskedSum()


@animal(lambda: (noise(SAMPLES, 4), noise(SAMPLES, 3)), "xs[0] xs[1] left right add")
class Variadic(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(4, 2), nn.Linear(3, 2)

    def forward(self, *xs: Tensor) -> Tensor:
        a, b = xs[0], xs[1]
        return self.left(a) + self.right(b)


@animal(named_vectors, "xs['a'] xs['b'] left right add")
class VariadicByName(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(4, 2), nn.Linear(3, 2)

    def forward(self, **xs: Tensor) -> Tensor:
        a, b = xs["a"], xs["b"]
        return self.left(a) + self.right(b)


# Outputs


class Pair(NamedTuple):
    mean: Tensor
    spread: Tensor


class Nested(NamedTuple):
    pair: Pair
    rest: dict[str, Tensor]


class Heads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 2), nn.Linear(4, 3)


@animal(vectors, "x fc one two")
class TupleOutput(Heads):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.fc(x)
        return self.one(y), self.two(y)


@animal(vectors, "x fc one two")
class DictOutput(Heads):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = self.fc(x)
        return {"one": self.one(y), "two": self.two(y)}


@animal(vectors, "x fc one two")
class NamedTupleOutput(Heads):
    def forward(self, x: Tensor) -> Nested:
        y = self.fc(x)
        one = self.one(y)
        return Nested(Pair(one, self.two(y)), {"class": one.argmax(1), "features": y})


class Answer(OrderedDict):  # type: ignore[type-arg]
    """What transformers call a ModelOutput: a dict with attributes."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(name) from error


register_pytree_node(
    Answer,
    lambda answer: (list(answer.values()), list(answer)),
    lambda values, names: Answer(zip(names, values, strict=True)),
)


class UnregisteredAnswer(OrderedDict):  # type: ignore[type-arg]
    """A dict of a kind that torch does not know how to look into."""


@animal(vectors, error=(ModelError, "returns UnregisteredAnswer: it should return a floating-point tensor"))
class UnknownKindOfOutput(Heads):
    def forward(self, x: Tensor) -> UnregisteredAnswer:
        y = self.fc(x)
        return UnregisteredAnswer(one=self.one(y))


@animal(vectors, error=(ModelError, "returns float32 scalar: it should return a floating-point tensor"))
class ScalarOutput(Heads):
    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x).sum()


@animal(vectors, error=(ModelError, "returns int64 1: it should return a floating-point tensor"))
class NoFloatOutput(Heads):
    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x).argmax(1)


@animal(vectors, error=(ModelError, "returns str: it should return a floating-point tensor"))
class NoTensorOutput(Heads):
    def forward(self, x: Tensor) -> str:
        return f"{self.fc(x).shape}"


@animal(vectors, error=(ModelError, "no activation that depends on its input"))
class ConstantOutput(Heads):
    def forward(self, x: Tensor) -> Tensor:
        return torch.ones_like(x)


class Scaled(nn.Module):
    """A block with a parameter of its own beside its modules'."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.gamma = nn.Linear(4, 4), nn.Parameter(torch.full((4,), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.gamma * self.fc(x)


@animal(vectors, "input_1 0.fc mul add 1.fc mul_1 add_1")
def layer_scale() -> nn.Module:
    return nn.Sequential(Scaled(), Scaled())


# Parts that do not run, frozen parts, odd precisions


@animal(vectors, "x fc one", notes=("two, idle.0 never ran",))
class NeverRun(Heads):
    def __init__(self) -> None:
        super().__init__()
        self.idle = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.one(self.fc(x))


@animal(vectors, "x fc two one", notes=("exactly 0",))
class DeadEnd(Heads):
    def forward(self, x: Tensor) -> Tensor:
        y = self.fc(x)
        self.two(y)
        return self.one(y)


@animal(images, "input_1 0 1 2")
def frozen_trunk() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1))
    model[0].requires_grad_(False)
    return model


@animal(lambda: images().to(memory_format=torch.channels_last), "input_1 0 1 2")
def channels_last() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1))
    return model.to(memory_format=torch.channels_last)


@animal(lambda: vectors().half(), "input_1 0 1", notes=("weights in float16",))
def half_precision() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 3), nn.GELU()).half()


@animal(vectors, "input_1 0 1", notes=("weights in bfloat16",))
def bfloat16() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 3), nn.GELU()).bfloat16()


@animal(vectors, "input_1 0 1")
def float64() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 3), nn.GELU()).double()


@animal(images, "x mul add relu")
class NoParameters(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x * 2 + 1)


@animal(vectors, "input_1")
def identity() -> nn.Module:
    return nn.Identity()


@animal(vectors, "x matmul relu")
class BareParameter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(4, 2))

    def forward(self, x: Tensor) -> Tensor:
        return (x @ self.w).relu()


@animal(vectors, error=(ModelError, "lazy layers"))
def lazy_linear() -> nn.Module:
    return nn.Sequential(nn.LazyLinear(3), nn.ReLU())


@animal(vectors, "input_1 0 1", notes=("no weight trace for 0.parametrizations.weight", "exactly 0"))
def weight_normed() -> nn.Module:
    return nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)), nn.ReLU())


# State that changes when the model runs


@animal(images, "input_1 0 1 2 3 4 5")
def train_mode() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout2d(0.5), nn.Conv2d(4, 2, 1), nn.Dropout(0.1)
    ).train()


@animal(images, "input_1 0 1 2")
def partly_eval() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5)).train()
    model[1].eval()
    return model


@animal(vectors, "x fc sum_1 copy_", apart=False, notes=("exactly 0",))
class Remembers(nn.Module):
    """Assigns attributes and buffers, and writes an activation into a buffer, whenever it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.count, self.last = nn.Linear(4, 2), 0, None
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("memory", torch.zeros(2))

    def forward(self, x: Tensor) -> Tensor:
        self.calls = self.calls + 1
        self.steps.add_(1)
        self.count += 1
        self.last = y = self.fc(x)
        self.memory.copy_(y.sum(0))
        return y


@animal(tokens, "embedding fc")
class RenormedEmbedding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.fc = nn.Embedding(11, 4, max_norm=0.5), nn.Linear(4, 2)

    def forward(self, ids: Tensor) -> Tensor:
        return self.fc(self.embedding(ids))


@animal(vectors, "x fc getitem add", apart=False, notes=("exactly 0",))
class Noisy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x) + 0.1 * torch.randn_like(x[:, :2])


@animal(vectors, error=(ModelError, "it draws random numbers"))
class NotDeterministic(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x) + float(x.shape[0]) * random.random()


@animal(vectors, error=(ModelError, "weight '0.weight' holds 1 NaN or infinite of 12 values"))
def broken_weights() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    with torch.no_grad():
        model[0].weight[1, 2] = float("nan")
    return model


@animal(vectors, error=(DataError, "does not take this input"))
def wrong_shape() -> nn.Module:
    return nn.Linear(5, 2)


# Samples elsewhere than along dimension 0, or mixed


@animal(sequences, "x transpose fc relu last transpose_1")
class TimeFirstInside(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.last = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = x.transpose(0, 1)
        return self.last(F.relu(self.fc(y))).transpose(0, 1)


@animal(sequences, error=(LossError, "first dimension"))
class TimeFirstOutside(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x).transpose(0, 1)


@animal(images, "x conv mean mul sub", apart=False)
class MixesSamples(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return y - 0.5 * y.mean(0, keepdim=True)


@animal(vectors, "x fc cumsum", apart=False)
class LaterSamplesSeeEarlierOnes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x).cumsum(0)


@animal(images, "x conv norm", apart=False)
class BatchStatistics(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


@animal(
    images,
    "x view permute reshape qkv getitem_4 getitem_5 getitem_6 transpose matmul softmax matmul_1 last "
    "view_1 permute_1 reshape_1",
)
class Windows(nn.Module):
    """Windows merged into the batch dimension, as Swin transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.last = nn.Linear(3, 9), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        y = x.view(b, c, h // 3, 3, w // 3, 3).permute(0, 2, 4, 3, 5, 1).reshape(-1, 9, c)
        q, k, v = self.qkv(y).chunk(3, -1)
        y = self.last((q @ k.transpose(1, 2)).softmax(-1) @ v)
        y = y.view(b, h // 3, w // 3, 3, 3, c).permute(0, 5, 1, 3, 2, 4)
        return y.reshape(b, c, h, w)


# Larger building blocks


@animal(sequences, "x getitem getitem_1 last", notes=("no weight trace for lstm",))
class Lstm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.last = nn.LSTM(4, 3, num_layers=2, batch_first=True), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.lstm(x)[0][:, -1])


@animal(sequences, "x norm getitem add last", notes=("no weight trace for attention",))
class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.last = nn.LayerNorm(4), nn.Linear(4, 2)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        return self.last(x + self.attention(y, y, y)[0])


ENCODER_LAYER = "self_attn norm1 linear1 dropout linear2 norm2".split()  # `dropout` hands on what F.relu made


@animal(
    sequences,
    " ".join(["src", *(f"layers.{i}.{part}" for i in range(2) for part in ENCODER_LAYER)]),
    traced=False,
    notes=("no weight trace for layers.0.self_attn, layers.1.self_attn",),
)
def transformer_encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.1, batch_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


NORM_FIRST = "norm1 self_attn dropout1 norm2 linear1 dropout linear2 dropout2".split()


@animal(
    sequences,
    " ".join(
        [
            "x",
            *(f"encoder.layers.{i}{p}" for i in range(2) for p in [*(f".{n}" for n in NORM_FIRST), ""]),
            "mean",
            "head",
        ]
    ),
    notes=("no weight trace for encoder.layers.0.self_attn",),
)
class EncoderInside(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.1, activation="gelu", batch_first=True, norm_first=True)
        self.encoder, self.head = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x).mean(1))


@dataclass
class Config:
    """A small transformer's sizes, in the manner of transformers."""

    vocabulary: int = 11
    width: int = 8
    heads: int = 2
    depth: int = 2
    positions: int = 16


class SelfAttention(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.heads = config.heads
        self.query, self.key = nn.Linear(config.width, config.width), nn.Linear(config.width, config.width)
        self.value, self.output = nn.Linear(config.width, config.width), nn.Linear(config.width, config.width)
        self.dropout = nn.Dropout(0.1)

    def forward(self, hidden_states: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
        q, k, v = (
            p(hidden_states).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for p in (self.query, self.key, self.value)
        )
        scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        if bias is not None:
            scores = scores + bias
        weights = self.dropout(scores.softmax(-1))
        return self.output((weights @ v).transpose(1, 2).flatten(2)), weights


class TransformerLayer(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.attention, self.norm1, self.norm2 = SelfAttention(config), nn.LayerNorm(8), nn.LayerNorm(8)
        self.up, self.act, self.down = nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8)

    def forward(self, hidden_states: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
        attended, weights = self.attention(hidden_states, bias)
        x = self.norm1(hidden_states + attended)
        return self.norm2(x + self.down(self.act(self.up(x)))), weights


def masked_tokens() -> dict[str, Tensor]:
    mask = torch.ones(SAMPLES, 5, dtype=torch.int64)
    mask[1, 3:] = 0
    return {"input_ids": tokens(), "attention_mask": mask}


HUGGING_FACE_LAYER = [
    *(f"attention.{part}" for part in "query key value matmul truediv softmax matmul_1 output".split()),
    *"add norm1 up act down add_1 norm2".split(),
]


@animal(
    masked_tokens,
    " ".join(
        [
            *("word_embeddings", "add"),
            *(f"layer.{i}.{part}" for i in range(2) for part in HUGGING_FACE_LAYER),
            "classifier",
        ]
    ),
    traced=False,
    notes=("padding (attention_mask is 0) is left out: 2 of 15 positions", "no weight trace for position_embeddings"),
)
class HuggingFaceStyle(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.config = Config()
        self.word_embeddings = nn.Embedding(self.config.vocabulary, self.config.width, padding_idx=0)
        self.position_embeddings = nn.Embedding(self.config.positions, self.config.width)
        self.layer = nn.ModuleList(TransformerLayer(self.config) for _ in range(self.config.depth))
        self.classifier = nn.Linear(self.config.width, 3)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_attentions: bool = False,
    ) -> Answer:
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give input_ids or inputs_embeds")
        x = self.word_embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        if x.shape[1] > self.config.positions:
            raise ValueError("too long")
        x = x + self.position_embeddings(torch.arange(x.shape[1]))
        bias = None
        if attention_mask is not None and not bool(attention_mask.all()):
            bias = torch.where(attention_mask[:, None, None] == 0, float("-inf"), 0.0)
        attentions: tuple[Tensor, ...] = ()
        for layer in self.layer:
            x, weights = layer(x, bias)
            attentions += (weights,) if output_attentions else ()
        return Answer(logits=self.classifier(x[:, 0]), **({"attentions": attentions} if attentions else {}))


class BasicBlock(nn.Module):
    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out)
        self.conv2, self.bn2 = nn.Conv2d(out, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = (
            nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))
            if stride > 1
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        identity = x
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        return self.relu(out)


@animal(
    images,
    "x conv1 bn1 relu maxpool "
    "layer1.0.conv1 layer1.0.bn1 layer1.0.relu layer1.0.conv2 layer1.0.bn2 add layer1.0.relu_dup1 "
    "layer2.0.conv1 layer2.0.bn1 layer2.0.relu layer2.0.conv2 layer2.0.bn2 "
    "layer2.0.downsample.0 layer2.0.downsample.1 add_1 layer2.0.relu_dup1 avgpool flatten fc",
)
class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(2, 1)
        self.layer1, self.layer2 = nn.Sequential(BasicBlock(4, 4, 1)), nn.Sequential(BasicBlock(4, 6, 2))
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.avgpool(self.layer2(self.layer1(x)))
        return self.fc(torch.flatten(x, 1))


class Wrapper(nn.Module):
    """As DataParallel: the model is its child ``module``, arguments go through."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)


@animal(images, "x module.conv1 module.relu module.conv2 module.relu_dup1")
class DataParallelLike(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.module = Reused()

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x)


@animal(images, "args module.conv1 module.relu module.conv2 module.relu_dup1", traced=False)
def wrapped() -> nn.Module:
    return Wrapper(Reused())


@animal(images, "x conv1 relu conv2 relu_dup1", notes=("took the network out of DataParallel",))
def data_parallel() -> nn.Module:
    return nn.DataParallel(Reused())


# What a ranking must leave as it was


def state(model: nn.Module, data: Any = None) -> dict[str, Any]:
    """Return all that a ranking must not change: of the model, of the user's data, of the whole process."""
    hooks = [name for name in vars(nn.Module()) if name.endswith("_hooks")]
    return {
        "weights and buffers": {
            name: (tensor.dtype, tensor.stride(), _bytes(tensor)) if not _is_lazy(tensor) else None
            for name, tensor in [*model.named_parameters(), *model.named_buffers()]
        },
        "identity": [id(tensor) for tensor in [*model.parameters(), *model.buffers()]],
        "requires_grad": [tensor.requires_grad for tensor in [*model.parameters(), *model.buffers()]],
        "gradients": [parameter.grad is None for parameter in model.parameters()],
        "modes": {path: module.training for path, module in model.named_modules()},
        "hooks": {
            (path, name): len(getattr(module, name)) for path, module in model.named_modules() for name in hooks
        },
        "global hooks": [len(found) for found in vars(nn.modules.module).values() if isinstance(found, OrderedDict)],
        "in-place flags": {path: getattr(module, "inplace", None) for path, module in model.named_modules()},
        "attributes": {path: {n: id(v) for n, v in vars(m).items()} for path, m in model.named_modules()},
        "forward": {path: id(getattr(module.forward, "__func__", None)) for path, module in model.named_modules()},
        "class": {path: type(module) for path, module in model.named_modules()},
        "torch's random numbers": _bytes(torch.get_rng_state()),
        "numpy's random numbers": str(np.random.get_state()),
        "Python's random numbers": random.getstate(),
        "gradients on": torch.is_grad_enabled(),
        "default dtype": torch.get_default_dtype(),
        "attention's fast path": torch.backends.mha.get_fastpath_enabled(),
        "data": [(_bytes(leaf), leaf.requires_grad) for leaf in tree_leaves(data) if isinstance(leaf, Tensor)],
    }


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return what differs between two states."""
    return [what for what in before if before[what] != after[what]]


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _is_lazy(tensor: Tensor) -> bool:
    return isinstance(tensor, nn.parameter.UninitializedTensorMixin)
