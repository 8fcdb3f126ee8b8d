"""What the tests of training share: a tiny network, data, and a way to run a training apart and kill it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hessrank.distill.training.outputs.result import TrainResult
from hessrank.distill.training.train import train
from hessrank.quant.policy import Policy

FOUR_BITS = {"extra_qconfig_dict": {"w_qscheme": {"bit": 4}, "a_qscheme": {"bit": 4}}}
HINTED = FOUR_BITS | {"distill_config": ["relu", "inner.relu_dup1"], "distill_coeff": [0.7, 0.3]}


class Inner(nn.Module):
    """A linear layer and an activation that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)
        self.relu = nn.LeakyReLU(0.2)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.fc(self.relu(x)))


class Net(nn.Module):
    """Six numbers in, three logits out; dropout, so that randomness matters, and a layer called twice."""

    def __init__(self, dropout: float = 0.25, norm: bool = False) -> None:
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.norm = nn.BatchNorm1d(8) if norm else nn.Identity()
        self.relu = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout(dropout)
        self.inner = Inner()
        self.last = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.inner(self.dropout(self.relu(self.norm(self.first(x))))))


def network(**options: Any) -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Net(**options)


def points(count: int = 48, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return inputs and labels: which of three sums is the largest."""
    x = torch.randn(count, 6, generator=torch.Generator().manual_seed(seed))
    return x, (x[:, :3] + x[:, 3:]).argmax(1)


def trained(folder: Path, policy: Any = HINTED, model: nn.Module | None = None, **options: Any) -> TrainResult:
    """Train the tiny network quietly: 6 steps an epoch."""
    settings = {"epochs": 3, "batch_size": 8, "learning_rate": 1e-2, "pictures": 0, **options}
    data = settings.pop("data", points())
    settings.setdefault("validation", points(20, seed=1))
    read = Policy.of(policy) if isinstance(policy, dict) else policy
    model = network() if model is None else model
    return train(model, read, data, out=folder, say=settings.pop("say", lambda line: None), **settings)


def last_state(folder: Path) -> dict[str, Any]:
    """Return the weights after the last epoch, whether or not it was the best."""
    (last,) = folder.glob("last-*.ckpt")
    state: dict[str, Any] = torch.load(last, weights_only=True)["state_dict"]
    return state


def in_child(work: Callable[[], None], *, kill_after: float | None = None) -> int:
    """Run ``work`` in a process of its own; kill it with SIGKILL after some seconds. Return its exit status."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
