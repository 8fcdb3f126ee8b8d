"""The model comes back as it was: after success, after an error anywhere, after Ctrl-C."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import torch
from helpers.zoo import ZOO, changes, images, state, tokens, vectors
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from hessrank.analysis.rank import rank
from hessrank.errors import LossError
from hessrank.network.frozen_model import freeze

RANKED = [name for name, animal in ZOO.items() if animal.error is None]
SOME = [
    *("reused", "tied_embedding", "inplace_residual", "inplace_on_input", "partly_eval", "remembers"),
    *("renormed_embedding", "noisy", "encoder_inside", "hugging_face_style", "half_precision"),
]


@pytest.fixture(autouse=True)
def _own_random_numbers() -> Iterator[None]:
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        yield
    random.setstate(python)
    np.random.set_state(numpy)


class BreaksError(Exception):
    """Raised on purpose."""


def squares_until(calls: int) -> Callable[[Tensor], Tensor]:
    """Return a loss of the output alone that raises when it is called once more than ``calls`` times."""
    left = calls

    def loss(output: Any) -> Tensor:
        nonlocal left
        if left == 0:
            raise BreaksError
        left -= 1
        return next(iter(output.values()) if isinstance(output, dict) else iter([output])).square().sum()

    return loss


def interrupt_at(stage: str, least: int) -> Callable[[str, int, int], None]:
    def progress(now: str, done: int, total: int) -> None:
        if now == stage and done >= least:
            raise KeyboardInterrupt

    return progress


def _ends_in(error: type[BaseException], name: str, **options: Any) -> list[str]:
    model, data = ZOO[name].build(), ZOO[name].data()
    before = state(model, data)
    with pytest.raises(error):
        rank(model, data, max_probes=4, bits=(8,), **options)
    return changes(before, state(model, data))


@pytest.mark.parametrize("name", RANKED)
def test_after_ctrl_c_while_probing(name):
    assert _ends_in(KeyboardInterrupt, name, num_samples=2, progress=interrupt_at("probes", 0)) == []


@pytest.mark.parametrize("done", [1, 4], ids=["at-first", "later"])
@pytest.mark.parametrize("name", SOME)
def test_after_ctrl_c_while_surveying(name, done):
    assert _ends_in(KeyboardInterrupt, name, progress=interrupt_at("ranges", done)) == []


@pytest.mark.parametrize("estimator", ["gauss-newton", "hutchinson"])
@pytest.mark.parametrize("calls", [0, 1, 3])
@pytest.mark.parametrize("name", SOME)
def test_after_a_loss_that_raises(name, calls, estimator):
    assert _ends_in(LossError, name, loss=squares_until(calls), estimator=estimator) == []


@pytest.mark.parametrize("calls", range(0, 12, 2))
@pytest.mark.parametrize("name", ["reused", "hugging_face_style"])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, MemoryError])
def test_after_a_module_that_raises(name, error, calls):
    model, data = ZOO[name].build(), ZOO[name].data()
    left = calls

    def fail(*_: Any) -> None:
        nonlocal left
        if left == 0:
            raise error("on purpose")
        left -= 1

    inner = [module for module in model.modules() if not list(module.children())]
    inner[1].register_forward_hook(fail)
    before = state(model, data)
    with pytest.raises(BaseException):  # noqa: B017, PT011 - an error of hessrank's for some of them
        rank(model, data, max_probes=4, bits=(8,))
    assert changes(before, state(model, data)) == []


def test_gradients_that_were_there_stay():
    model, data = ZOO["reused"].build(), ZOO["reused"].data()
    model(data).sum().backward()
    before = [p.grad.clone() for p in model.parameters()]
    held = [p.grad for p in model.parameters()]
    rank(model, data, max_probes=2)
    assert all(p.grad is g and torch.equal(g, b) for p, g, b in zip(model.parameters(), held, before, strict=True))


def test_the_users_hooks_stay_and_run():
    model, data = ZOO["reused"].build(), ZOO["reused"].data()
    seen: list[int] = []
    model.conv1.register_forward_hook(lambda *_: seen.append(1))
    rank(model, data, max_probes=2)
    assert seen
    assert len(model.conv1._forward_hooks) == 1


def test_a_hook_that_changes_the_output_is_part_of_the_network():
    model, data = ZOO["reused"].build(), ZOO["reused"].data()
    plain = rank(model, data, max_probes=2)["conv1"].trace
    model.conv2.register_forward_hook(lambda module, args, output: 2 * output)
    assert rank(model, data, max_probes=2)["conv1"].trace == pytest.approx(4 * plain, rel=1e-5)


@pytest.mark.parametrize("grad", [torch.no_grad, torch.enable_grad], ids=["no-grad", "grad"])
def test_the_callers_gradient_mode_does_not_matter(grad):
    model, data = ZOO["reused"].build(), ZOO["reused"].data()
    expected = rank(model, data, max_probes=2).to_frame()
    with grad():
        before = torch.is_grad_enabled()
        got = rank(model, data, max_probes=2).to_frame()
        assert torch.is_grad_enabled() == before
    assert got.equals(expected)


def test_the_callers_default_dtype_does_not_matter():
    model, data = ZOO["reused"].build(), ZOO["reused"].data()
    expected = rank(model, data, max_probes=2).to_frame()
    torch.set_default_dtype(torch.float64)
    try:
        got = rank(model, data, max_probes=2).to_frame()
        assert torch.get_default_dtype() is torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert got["trace"].to_numpy() == pytest.approx(expected["trace"].to_numpy(), rel=1e-5)


def test_data_that_requires_gradients():
    model = ZOO["reused"].build()
    expected = rank(model, images(), max_probes=2).to_frame()
    data = images().requires_grad_()
    before = state(model, data)
    got = rank(model, data, max_probes=2).to_frame()
    assert changes(before, state(model, data)) == []
    assert data.grad is None
    assert got["trace"].to_numpy() == pytest.approx(expected["trace"].to_numpy(), rel=1e-6)


def test_a_shuffled_data_loader_takes_no_random_numbers_from_the_caller():
    model = ZOO["reused"].build()
    data = DataLoader(TensorDataset(images()), batch_size=2, shuffle=True)
    before = state(model)
    rank(model, data, max_probes=2)
    assert changes(before, state(model)) == []


def test_a_model_can_be_copied_and_trained_after_it_was_ranked():
    model, data = ZOO["remembers"].build(), ZOO["remembers"].data()
    rank(model, data, max_probes=2)
    copy.deepcopy(model)(data).sum().backward()
    assert model.count == 0
    assert model.last is None


def test_inside_everything_is_frozen_and_in_eval_mode():
    model, data = ZOO["train_mode"].build(), ZOO["train_mode"].data()
    seen: list[tuple[bool, bool]] = []

    def look(module: nn.Module, args: Any) -> None:
        seen.append((any(m.training for m in model.modules()), any(p.requires_grad for p in model.parameters())))

    model[0].register_forward_pre_hook(look)
    rank(model, data, max_probes=2)
    assert set(seen) == {(False, False)}
    seen.clear()
    model(data)
    assert seen == [(True, True)]


def test_the_block_alone():
    model = ZOO["remembers"].build()
    before = state(model)
    with suppress(BreaksError), freeze(model):
        assert not model.training
        assert not any(p.requires_grad for p in model.parameters())
        model(vectors())
        assert float(torch.rand(1) + np.random.rand() + random.random()) >= 0
        model.calls.add_(7)
        model.register_buffer("new", torch.zeros(1))
        model.anything = 1
        raise BreaksError
    assert changes(before, state(model)) == []
    assert not hasattr(model, "new")
    assert not hasattr(model, "anything")


def test_a_renormed_embedding_keeps_its_long_rows():
    model = ZOO["renormed_embedding"].build()
    weights = model.embedding.weight.detach().clone()
    assert (weights[tokens()].norm(dim=-1) > 0.5).any()
    rank(model, tokens(), max_probes=2)
    assert torch.equal(model.embedding.weight, weights)
