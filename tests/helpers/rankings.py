"""Rankings that go through every kind of stage, in a second or two, and a way to run them in several processes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from hessrank.analysis.rank import rank
from hessrank.analysis.result.ranking import Ranking


class Curved(nn.Module):
    """A block of attention and a gate: the pilot finds stretches in it."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.qkv, self.out = nn.LayerNorm(6), nn.Linear(6, 18), nn.Linear(6, 6)
        self.up, self.gate, self.head = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Map B×T×6 to B×3."""
        q, k, v = self.qkv(self.norm(x)).chunk(3, -1)
        x = x + self.out(torch.softmax(q @ k.mT, -1) @ v)
        logits: Tensor = self.head(torch.sigmoid(self.gate(x)) * self.up(x)).mean(1)
        return logits


class Straight(nn.Module):
    """Two branches with the same weights: their traces are equal, and no number of probes settles their order."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(1, 1, 3, padding=1), nn.Conv2d(1, 1, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Map B×1×H×W to B×2×H−2×W−2."""
        return torch.cat([self.two(self.one(x)), self.two(self.one(x.flip(-1)))], 1)


def _straight() -> tuple[nn.Module, Any]:
    return Straight(), torch.randn(5, 1, 10, 10)


def _curved() -> tuple[nn.Module, Any]:
    return Curved(), (torch.randn(4, 3, 6), torch.tensor([0, 1, 2, 1]))


def _few_outputs() -> tuple[nn.Module, Any]:
    return nn.Sequential(nn.Linear(4, 9), nn.ReLU(), nn.Linear(9, 3)), torch.randn(5, 4)


RANKINGS: dict[str, tuple[Callable[[], tuple[nn.Module, Any]], dict[str, Any]]] = {
    "gauss-newton, in batches": (_straight, {"max_probes": 12, "batch_size": 2, "increase_probes": 100}),
    "by an increase": (_straight, {"max_probes": 6, "by": "act_increase_b4"}),
    "one sample, in blocks": (_straight, {"max_probes": 70, "num_samples": 1}),
    "exact": (_few_outputs, {}),
    "auto, with its pilot": (_curved, {"loss": "cross-entropy", "max_probes": 36}),
}


def ranked(name: str, **options: Any) -> Ranking:
    """Do one of :data:`RANKINGS`."""
    make, settings = RANKINGS[name]
    torch.manual_seed(0)
    model, data = make()
    return rank(model, data, **{"tolerance": 1e-6, "bits": (4, 6), **settings, **options})


def in_processes(count: int, folder: Path, work: Callable[[dist.ProcessGroup], None]) -> list[int]:
    """Let ``count`` processes of one group do ``work``; return their exit statuses, 1 for an exception.

    What a process raised stands in ``folder/error.<place>``.
    """
    children = []
    for place in range(count):
        child = os.fork()
        if child:
            children.append(child)
            continue
        try:
            dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=place, world_size=count)
            assert dist.group.WORLD is not None
            work(dist.group.WORLD)
        except BaseException as error:
            (folder / f"error.{place}").write_text(f"{type(error).__name__}: {error}")
            os._exit(1)
        os._exit(0)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
