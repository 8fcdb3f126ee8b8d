"""A training is the loop one would write by hand: the same steps, to the bit."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from helpers.training_networks import FOUR_BITS, HINTED, network, points, trained
from torch import nn

from hessrank.data.batch import Batch
from hessrank.distill.teacher.activations import tapped
from hessrank.distill.teacher.teacher import Teacher
from hessrank.distill.training.inputs.loaders import seed_all
from hessrank.quant.policy import Policy
from hessrank.quant.prepare import prepare


def order(epoch: int, count: int = 48, seed: int = 0) -> list[int]:
    """Return the order that torch's DistributedSampler gives one process."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed + epoch)).tolist()


def by_hand(
    student: nn.Module, epochs: int, loss_of, rate: float = 1e-2, dropped: nn.Module | None = None
) -> nn.Module:
    """Train as one would write it: Adam, batches of 8, an epoch's seed before its first batch."""
    x, y = points()
    optimizer = torch.optim.Adam(student.parameters(), lr=rate)
    for epoch in range(epochs):
        seed_all(0, epoch, 0, 0)
        student.train()
        places = order(epoch)
        for start in range(0, 48, 8):
            chosen = places[start : start + 8]
            optimizer.zero_grad()
            loss_of(x[chosen], y[chosen]).backward()
            optimizer.step()
    return student.eval()


def assert_same(found: nn.Module, expected: nn.Module) -> None:
    theirs = expected.state_dict()
    assert found.state_dict().keys() == theirs.keys()
    for name, value in found.state_dict().items():
        assert not isinstance(value, torch.Tensor) or torch.equal(value, theirs[name]), name


def last_epoch(folder: Path, like: nn.Module) -> nn.Module:
    """Return a network with the weights of the last epoch, not of the best."""
    (path,) = folder.glob("last-*.ckpt")
    like.load_state_dict(torch.load(path, weights_only=True)["state_dict"])
    return like.eval()


def test_float(tmp_path: Path) -> None:
    student = network()
    expected = by_hand(student, 3, lambda x, y: F.cross_entropy(student(x), y))
    trained(tmp_path, None)
    assert_same(last_epoch(tmp_path, network()), expected)


def test_quantized(tmp_path: Path) -> None:
    x, y = points()
    student = prepare(network(), Policy.of(FOUR_BITS), (x, y), num_samples=32, batch_size=8)
    before = copy.deepcopy(student)
    expected = by_hand(student, 3, lambda x, y: F.cross_entropy(student(x), y))
    trained(tmp_path, FOUR_BITS)
    assert_same(last_epoch(tmp_path, before), expected)


def test_distilled(tmp_path: Path) -> None:
    x, y = points()
    model = network()
    student = prepare(model, Policy.of(HINTED), (x, y), num_samples=32, batch_size=8)
    before = copy.deepcopy(student)
    layers = {"relu": 0.7, "inner.relu_dup1": 0.3}
    view = tapped(student, student.layer_nodes, list(layers))
    teacher = Teacher(model, Batch((x[:1],)), list(layers))

    def loss(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        output, found = view(x)
        _, wanted = teacher(Batch((x,)))
        terms = [F.cross_entropy(output, y)]
        terms += [c * F.mse_loss(found[layer], wanted[layer]) for layer, c in layers.items()]
        return torch.stack(terms).sum()

    expected = by_hand(student, 3, loss)
    trained(tmp_path, HINTED)
    assert_same(last_epoch(tmp_path, before), expected)


def test_a_teacher_of_its_own_is_asked(tmp_path: Path) -> None:
    """A teacher with other weights pulls elsewhere; one that is the model itself starts with a term near zero."""
    torch.manual_seed(1)
    other = network()
    for parameter in other.parameters():
        nn.init.normal_(parameter)
    own = trained(tmp_path / "own", HINTED, learning_rate=1e-9)
    theirs = trained(tmp_path / "theirs", HINTED, teacher=other, learning_rate=1e-9)
    assert theirs.metrics["train/relu"].iloc[0] > 20 * own.metrics["train/relu"].iloc[0]


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_optimizers_and_their_groups(optimizer: str, tmp_path: Path) -> None:
    settings = {"optimizer": optimizer, "weight_decay": 0.1, "epochs": 1, "quantizer_learning_rate": 3e-3}
    lsq = {"extra_qconfig_dict": {"w_fakequantize": "lsq", "a_fakequantize": "lsq"}}
    trained(tmp_path, lsq, **settings)
    (path,) = tmp_path.glob("last-*.ckpt")
    weights, quantizers = torch.load(path, weights_only=True)["optimizer_states"][0]["param_groups"]
    assert (weights["lr"], weights["weight_decay"]) == (1e-2, 0.1)
    assert (quantizers["lr"], quantizers["weight_decay"]) == (3e-3, 0.0)
    assert weights.get("momentum", 0.9) == 0.9


def test_the_cosine_ends_at_zero(tmp_path: Path) -> None:
    rates = trained(tmp_path, schedule="cosine", epochs=4).metrics["learning_rate"].tolist()
    expected = [1e-2 * (1 + torch.cos(torch.tensor(torch.pi * epoch / 4)).item()) / 2 for epoch in (1, 2, 3, 4)]
    assert rates == pytest.approx(expected, abs=1e-9)


def test_frozen_batch_norms_keep_their_statistics(tmp_path: Path) -> None:
    def statistics(folder: Path) -> torch.Tensor:
        (path,) = folder.glob("last-*.ckpt")
        state = torch.load(path, weights_only=True)["state_dict"]
        return next(value for name, value in state.items() if name.endswith("running_mean"))

    for policy in (FOUR_BITS, None):
        for freeze in (True, False):
            folder = tmp_path / f"{policy is None}-{freeze}"
            trained(folder, policy, network(norm=True), freeze_bn=freeze, epochs=1)
            assert bool((statistics(folder) == 0).all()) is freeze


def test_gradients_are_clipped(tmp_path: Path) -> None:
    """With plain gradient steps, a norm of at most c moves the weights by at most rate · c a step."""
    before = network()
    trained(tmp_path, None, optimizer="sgd", clip_gradients=1e-3, epochs=1, learning_rate=1.0)
    after = last_epoch(tmp_path, network())
    moved = torch.cat([(a - b).flatten() for a, b in zip(after.parameters(), before.parameters(), strict=True)])
    assert 0 < float(moved.detach().norm()) <= 6 * 1e-3 * 10.01  # six steps, momentum 0.9: at most ten times each


def test_the_task_alone_or_the_teacher_alone(tmp_path: Path) -> None:
    metrics = trained(tmp_path, HINTED, task_coeff=0.0, epochs=1).metrics
    assert metrics["train/task"].iloc[0] == 0.0
    assert metrics["train/loss"].iloc[0] == pytest.approx(
        metrics["train/relu"].iloc[0] + metrics["train/inner.relu_dup1"].iloc[0]
    )
