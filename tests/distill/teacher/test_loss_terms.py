"""The distillation part of the loss against its formula."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hessrank.distill.run_file import Settings
from hessrank.distill.teacher.loss_terms import Distillation, Hint, hints_of
from hessrank.errors import LossError, OptionError, UnknownNameError
from hessrank.quant.policy import Policy


def features(*shapes: tuple[int, ...], seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {f"layer{i}": torch.randn(*shape, generator=generator) for i, shape in enumerate(shapes)}


HINTS = (Hint("layer0", 0.7, "mse"), Hint("layer1", 0.1, "cosine"))


def test_terms_are_coefficient_times_loss() -> None:
    student, teacher = features((2, 3, 4, 4), (2, 5), seed=0), features((2, 3, 4, 4), (2, 5), seed=1)
    terms = Distillation(HINTS, student, teacher, Settings())(student, teacher, epoch=0.0)
    mse = ((student["layer0"] - teacher["layer0"]) ** 2).mean()
    cosine = 1 - nn.functional.cosine_similarity(student["layer1"], teacher["layer1"], dim=1).mean()
    assert list(terms) == ["layer0", "layer1"]
    torch.testing.assert_close(terms["layer0"], 0.7 * mse)
    torch.testing.assert_close(terms["layer1"], 0.1 * cosine)


@pytest.mark.parametrize(
    ("epoch", "expected"), [(0.0, 0.0), (0.5, 0.25), (1.0, 0.5), (2.0, 1.0), (7.0, 1.0)], ids=str
)
def test_the_warm_up_rises_from_zero_to_one(epoch: float, expected: float) -> None:
    student, teacher = features((2, 3), (2, 5), seed=0), features((2, 3), (2, 5), seed=1)
    full = Distillation(HINTS, student, teacher, Settings())(student, teacher, epoch)
    warm = Distillation(HINTS, student, teacher, Settings.of({"distill_warmup": 2.0}))(student, teacher, epoch)
    for layer, term in full.items():
        torch.testing.assert_close(warm[layer], expected * term)


def test_channels_that_differ_are_projected_and_learn() -> None:
    student, teacher = features((2, 3, 4, 4), seed=0), features((2, 6, 4, 4), seed=1)
    distillation = Distillation(HINTS[:1], student, teacher, Settings())
    term = distillation(student, teacher, 0.0)["layer0"]
    (projection,) = distillation.projections
    assert isinstance(projection, nn.Conv2d)
    torch.testing.assert_close(term, 0.7 * ((projection(student["layer0"]) - teacher["layer0"]) ** 2).mean())
    term.backward()
    assert all(parameter.grad is not None for parameter in distillation.parameters())


def test_attention_transfer_needs_no_projection() -> None:
    student, teacher = features((2, 3, 4, 4), seed=0), features((2, 6, 4, 4), seed=1)
    distillation = Distillation([Hint("layer0", 1.0, "attention-transfer")], student, teacher, Settings())
    assert not list(distillation.parameters())
    assert float(distillation(student, teacher, 0.0)["layer0"]) > 0


def test_other_sizes_are_refused_by_name() -> None:
    student, teacher = features((2, 3, 4, 4), seed=0), features((2, 3, 8, 8), seed=1)
    with pytest.raises(LossError, match=r"layer 'layer0': .*2×3×4×4.*2×3×8×8"):
        Distillation(HINTS[:1], student, teacher, Settings())


def test_an_unknown_loss_names_the_nearest() -> None:
    student = features((2, 3), seed=0)
    with pytest.raises(UnknownNameError, match="no distillation loss named 'mes'; nearest is 'mse'"):
        Distillation([Hint("layer0", 1.0, "mes")], student, student, Settings())


def policy(*layers: str) -> Policy:
    return Policy.of({"distill_config": list(layers), "distill_coeff": [0.5] * len(layers)})


def test_one_loss_serves_all_layers() -> None:
    assert hints_of(policy("a", "b"), Settings.of({"distill_loss": "cosine"})) == (
        Hint("a", 0.5, "cosine"),
        Hint("b", 0.5, "cosine"),
    )
    assert [hint.loss for hint in hints_of(policy("a", "b"), Settings.of({"distill_loss": ["mse", "cosine"]}))] == [
        "mse",
        "cosine",
    ]
    assert hints_of(policy(), Settings.of({"distill_loss": ["mse", "cosine"]})) == ()


def test_as_many_losses_as_layers() -> None:
    with pytest.raises(OptionError, match="distill_loss holds 2 and distill_config 3"):
        hints_of(policy("a", "b", "c"), Settings.of({"distill_loss": ["mse", "cosine"]}))
