"""What only training mode computes is said; what follows the mode by itself is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers import field_networks
from helpers.zoo import ZOO, changes, noise, state
from torch import Tensor, nn
from typer.testing import CliRunner

from hessrank.cli.app import app
from hessrank.data.batch import make_batch
from hessrank.data.samples import as_samples
from hessrank.models.wrappers import unwrap
from hessrank.quant.policy import Policy
from hessrank.quant.prepare import prepare
from hessrank.quant.prepare.training_mode import training_notes

TRACED = [name for name, animal in ZOO.items() if animal.traced and not animal.error]
POLICY = Policy.of({"extra_qconfig_dict": {"w_qscheme": {"bit": 8}, "a_qscheme": {"bit": 8}}})
DATA = noise(4, 3, 8, 8)


def notes_of(model: nn.Module, data: Any = DATA) -> tuple[str, ...]:
    return training_notes(model, make_batch(as_samples(data, 1), [0], model, needs_target=False))


class Block(nn.Module):
    """A convolution with what follows the mode."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.drop = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Dropout(0.2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.drop(F.relu(self.norm(self.conv(x))))
        return y


class Net(nn.Module):
    """A classifier whose tail is given."""

    def __init__(self, tail: Callable[[Any, Tensor], Any]) -> None:
        super().__init__()
        self.tail = tail
        self.a, self.fc = Block(), nn.Linear(6, 4)
        self.aux = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4))
        self.gain = nn.Parameter(torch.ones(6))
        self.register_buffer("mean", torch.zeros(6))
        self.register_buffer("var", torch.ones(6))

    def forward(self, x: Tensor) -> Any:
        return self.tail(self, self.a(x).mean((2, 3)))


def net(tail: Callable[[Any, Tensor], Any]) -> Net:
    torch.manual_seed(0)
    return Net(tail).eval()


def raises(s: Net, h: Tensor) -> Any:
    if s.training:
        raise ValueError("targets should be given")
    return s.fc(h)


def looks(s: Net, h: Tensor) -> Any:
    return s.aux(h) if s.training and h.sum() > 0 else s.fc(h)


def keeps_statistics(s: Net, h: Tensor) -> Any:
    if s.training:
        s.mean.copy_(h.mean(0))
    return s.fc(h)


def pair(s: Net, h: Tensor) -> Any:
    return (s.fc(h), s.aux(h)) if s.training else s.fc(h)


def swapped(s: Net, h: Tensor) -> Any:
    one, other = s.fc(h), s.aux(h)
    return (other, one) if s.training else (one, other)


def named(s: Net, h: Tensor) -> Any:
    return {"out": s.fc(h)} | ({"aux": s.aux(h)} if s.training else {})


def skips(s: Net, h: Tensor) -> Any:
    return s.fc(h * (torch.rand_like(h) > 0.5) if s.training else h)


def attends(s: Net, h: Tensor) -> Any:
    h = h[:, None]
    return s.fc(F.scaled_dot_product_attention(h, h, h, dropout_p=0.1 if s.training else 0.0))


DIFFERENT = {
    "a pair": (pair, ["left out: aux (59 parameters)", "returns 1 tensor, not 2 tensors"]),
    "a dict": (named, ["left out: aux (59 parameters)", "returns 1 tensor, not 2 tensors"]),
    "another nest": (lambda s, h: [s.fc(h)] if s.training else s.fc(h), ["returns its tensors in another nest"]),
    "another head": (lambda s, h: (s.aux if s.training else s.fc)(h), ["left out: aux (59 ", "in training too: fc"]),
    "a bare parameter": (lambda s, h: s.fc(h * s.gain if s.training else h), ["left out: gain, mul (6 parameters)"]),
    "no softmax": (lambda s, h: s.fc(h) if s.training else s.fc(h).softmax(1), ["computed in training too: softmax"]),
    "a batch norm as a function": (
        lambda s, h: s.fc(F.batch_norm(h, s.mean, s.var, training=s.training)),
        ["computed as in evaluation: batch_norm"],
    ),
    "statistics": (keeps_statistics, ["left out: mean, copy_"]),
    "a mask at random": (skips, ["left out: rand_like, gt, mul"]),
    "noise": (lambda s, h: s.fc(h + (torch.randn_like(h) if s.training else 0)), ["left out: randn_like"]),
    "attention dropout": (attends, ["computed as in evaluation: scaled_dot_product_attention"]),
    "operands": (lambda s, h: s.fc(h - s.mean if s.training else s.mean - h), ["computed as in evaluation: sub"]),
    "another order": (swapped, ["returns other tensors"]),
    "targets": (raises, ["that torch.fx cannot follow (targets should be given)", "left out: gain, aux (65"]),
    "values": (looks, ["torch.fx cannot follow (symbolically traced variables cannot be used as inputs to control"]),
}  # fmt: skip


@pytest.mark.parametrize("name", DIFFERENT)
def test_what_only_training_computes_is_said_in_one_line(name: str) -> None:
    tail, expected = DIFFERENT[name]
    model = net(tail)
    before = state(model)
    note = notes_of(model)[0]
    assert all(part in note for part in expected), note
    assert "only its evaluation form is kept" in note
    assert "train with it in float first" in note
    assert "\n" not in note
    assert not changes(before, state(model))


FOLLOWING = {
    "nothing": lambda s, h: s.fc(h),
    "dropout": lambda s, h: s.fc(F.dropout(h, 0.5, s.training)),
    "alpha dropout": lambda s, h: s.fc(F.alpha_dropout(h, 0.5, s.training)),
    "dropout of whole channels": lambda s, h: s.fc(
        F.feature_alpha_dropout(h[:, :, None], 0.5, s.training).flatten(1)
    ),
    "dropout in evaluation, too": lambda s, h: s.fc(F.dropout(h, 0.5)),
    "a tensor made of numbers": lambda s, h: s.fc(h) + torch.tensor([1.0, 2.0, 3.0, 4.0]),
    "random numbers": lambda s, h: s.fc(h) + torch.rand(4),
}


@pytest.mark.parametrize("name", FOLLOWING)
def test_what_follows_the_mode_gives_no_alarm(name: str) -> None:
    notes = notes_of(net(FOLLOWING[name]))
    assert notes == ("left out: gain, aux (65 parameters), which forward never uses",)


@pytest.mark.parametrize("function", ["dropout", "alpha dropout"])
def test_a_functional_dropout_drops_in_training(function: str) -> None:
    ours = prepare(net(FOLLOWING[function]), POLICY, DATA)
    assert torch.equal(ours.eval()(DATA), ours(DATA))
    one, other = (ours.train()(DATA) for _ in range(2))
    assert not torch.equal(one, other)


@pytest.mark.parametrize("name", TRACED)
def test_the_zoo_gives_no_alarm(name: str) -> None:
    animal = ZOO[name]
    expected = ("left out: scale, two, idle (24 parameters), which forward never uses",)
    assert notes_of(unwrap(animal.build()), animal.data()) == (expected if name == "never_run" else ())


@pytest.mark.parametrize("name", field_networks.FIELD)
def test_networks_of_the_field_give_no_alarm(name: str) -> None:
    assert notes_of(*field_networks.build(name)) == ()


def test_a_module_in_which_nothing_is_kept_stands_for_all_inside() -> None:
    class Path(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * torch.rand_like(x).floor() if self.training else x

    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(4, 4), Path()) for _ in range(7)])

        def forward(self, x: Tensor) -> Tensor:
            for block in self.blocks:
                x = block(x)
            return x

    assert (
        "left out: blocks.0.1, blocks.1.1, blocks.2.1, blocks.3.1, blocks.4.1 and 2 more;"
        in notes_of(Deep(), noise(2, 4))[0]
    )


def test_prepared_models_say_it() -> None:
    ours = prepare(net(pair), POLICY, DATA)
    assert "aux (59 parameters)" in ours.warnings[0]
    assert ours.warnings[0] in str(ours)
    assert not any("aux" in key for key in ours.state_dict())


SOURCE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.aux = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x):
        return (self.fc(x), self.aux(x)) if self.training else self.fc(x)
"""


def test_check_says_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no fault of the policy: the command ends well."""
    monkeypatch.chdir(tmp_path)
    Path("nets.py").write_text(SOURCE)
    names = {"fc": (3, 4), "aux": (3, 4)}
    state_dict = {f"{n}.weight": torch.randn(*s) for n, s in names.items()} | {
        f"{n}.bias": torch.zeros(3) for n in names
    }
    torch.save(state_dict, "model.pth")
    POLICY.write("policy.yaml")
    given = ["--arch", "nets.py:Net", "--data", "random", "--input-shape", "4"]
    found = CliRunner().invoke(app, ["check", "policy.yaml", "model.pth", *given])
    assert found.exit_code == 0, found.output
    assert "note: forward computes something else in training mode" in found.output
    assert "left out: aux (15 parameters)" in found.output
