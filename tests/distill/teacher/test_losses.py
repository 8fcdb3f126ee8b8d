"""Distillation losses: values against formulas written out, slopes, zero vectors, names and shapes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from hessrank.distill.teacher.loss_registry import DISTILLATION_LOSSES, make_distillation_loss
from hessrank.errors import LossError, OptionError, UnknownNameError

NAMES = ("mse", "attention-transfer", "cosine", "logits-kl", "similarity-preserving")
TEMPERATURE = 3.0


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def loss_of(name, student, teacher, **options):
    return make_distillation_loss(name, **options)(student, teacher)


def vectors(x):
    """The vectors of channels of every sample and position, one after the other."""
    return [x[i, :, p] for i in range(len(x)) for p in range(x[0, 0].size)]


def mse(s, t):
    return sum((a - b) ** 2 for a, b in zip(s.ravel(), t.ravel(), strict=True)) / s.size


def attention_transfer(s, t):
    total = 0.0
    for one, other in zip(s, t, strict=True):
        maps = [np.array([v @ v for v in x.T]) for x in (one, other)]
        a, b = (q / math.sqrt(sum(q * q)) for q in maps)
        total += sum((a - b) ** 2)
    return total / (len(s) * s.shape[2])


def cosine(s, t):
    pairs = list(zip(vectors(s), vectors(t), strict=True))
    return sum(1 - a @ b / math.sqrt((a @ a) * (b @ b)) for a, b in pairs) / len(pairs)


def logits_kl(s, t):
    total = 0.0
    for a, b in zip(vectors(s), vectors(t), strict=True):
        p, q = (np.exp(z / TEMPERATURE) / np.exp(z / TEMPERATURE).sum() for z in (b, a))
        total += sum(p * np.log(p / q))
    return TEMPERATURE**2 * total / len(vectors(s))


def similarity_preserving(s, t):
    grams = []
    for x in (s.reshape(len(s), -1), t.reshape(len(t), -1)):
        gram = np.array([[a @ b for b in x] for a in x])
        grams.append(np.stack([row / np.linalg.norm(row) for row in gram]))
    return np.linalg.norm(grams[0] - grams[1], "fro") ** 2 / len(s) ** 2


FORMULAS = dict(zip(NAMES, (mse, attention_transfer, cosine, logits_kl, similarity_preserving), strict=True))
CASES = [
    (name, shape)
    for name in NAMES
    for shape in ((3, 5), (3, 5, 4), (2, 4, 3, 2), (2, 3, 2, 2, 2))
    if name != "attention-transfer" or len(shape) > 2
]
IDS = [f"{name} {'×'.join(map(str, shape))}" for name, shape in CASES]


@pytest.mark.parametrize(("name", "shape"), CASES, ids=IDS)
def test_values_are_those_of_the_formula(name, shape):
    student, teacher = drawn(*shape, seed=1), drawn(*shape, seed=2)
    flat = [x.reshape(*shape[:2], -1).numpy() for x in (student, teacher)]
    found = loss_of(name, student, teacher, temperature=TEMPERATURE)
    assert found.shape == ()
    assert found.item() == pytest.approx(FORMULAS[name](*flat), rel=1e-12)


@pytest.mark.parametrize(
    ("name", "student", "teacher"),
    [("attention-transfer", (2, 3, 2, 2), (2, 6, 2, 2)), ("similarity-preserving", (4, 3, 2), (4, 2, 5, 5))],
    ids=["attention-transfer other channels", "similarity-preserving other everything"],
)
def test_losses_that_compare_different_shapes(name, student, teacher):
    pair = drawn(*student, seed=1), drawn(*teacher, seed=2)
    flat = [x.reshape(*x.shape[:2], -1).numpy() for x in pair]
    assert not make_distillation_loss(name).needs_same_channels
    assert loss_of(name, *pair).item() == pytest.approx(FORMULAS[name](*flat), rel=1e-12)


@pytest.mark.parametrize(("name", "shape"), CASES, ids=IDS)
def test_slope_is_the_students_alone(name, shape):
    student, teacher = drawn(*shape, seed=3).requires_grad_(), drawn(*shape, seed=4).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: loss_of(name, s, teacher.detach()), (student,))
    loss_of(name, student, teacher).backward()
    assert student.grad.abs().max() > 0
    assert teacher.grad is None


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("zero", ["student", "teacher", "both"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_zero_vectors(name, zero, dtype):
    student, teacher = drawn(3, 4, 2, 2, seed=5).to(dtype), drawn(3, 4, 2, 2, seed=6).to(dtype)
    for x in {"student": [student], "teacher": [teacher], "both": [student, teacher]}[zero]:
        x[0] = 0  # a whole sample
        x[1, :, 0, 1] = 0  # the channels at one position
    student.requires_grad_()
    loss = loss_of(name, student, teacher)
    loss.backward()
    assert loss.isfinite()
    assert student.grad.isfinite().all()
    assert student.grad.abs().max() < 10  # not merely finite, as 1/ε would be


@pytest.mark.parametrize("name", NAMES)
def test_nothing_but_zeros_agrees_with_itself(name):
    student = torch.zeros(2, 3, 2, 2, requires_grad=True)
    loss = loss_of(name, student, torch.zeros(2, 3, 2, 2))
    loss.backward()
    assert loss.item() == 0
    assert student.grad.abs().max() < 1e-7  # softmax rounds


@pytest.mark.parametrize("name", NAMES)
def test_zero_for_a_perfect_student(name):
    x = drawn(3, 4, 2, 2, seed=7)
    assert loss_of(name, x.clone(), x).item() == pytest.approx(0, abs=1e-15)
    assert loss_of(name, drawn(3, 4, 2, 2, seed=8), x).item() > 1e-3


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 7.0, 1e30])
def test_cosine_does_not_see_lengths(scale):
    student, teacher = drawn(2, 5, 3, seed=9).float(), drawn(2, 5, 3, seed=10).float()
    assert loss_of("cosine", student * scale, teacher).item() == pytest.approx(
        loss_of("cosine", student, teacher).item(), rel=1e-5
    )


def test_cosine_counts_directions():
    teacher = torch.tensor([[[1.0, 1.0, 0.0, 2.0], [0.0, 0.0, 0.0, 0.0]]])
    student = torch.tensor([[[3.0, -2.0, 5.0, 0.0], [0.0, 0.0, 5.0, 0.0]]])
    # same direction, opposite, no direction to follow, none taken
    assert loss_of("cosine", student, teacher).item() == pytest.approx((0 + 2 + 0 + 1) / 4)


def test_cosine_pushes_a_zero_vector_nowhere():
    student = torch.tensor([[[0.0, 1.0], [0.0, 0.0]]], requires_grad=True)
    loss_of("cosine", student, torch.tensor([[[3.0, 3.0], [4.0, 4.0]]])).backward()
    torch.testing.assert_close(student.grad, torch.tensor([[[0.0, 0.0], [0.0, -0.4]]]))


def test_attention_does_not_see_signs_scales_or_the_order_of_channels():
    student, teacher = drawn(2, 6, 3, 3, seed=11), drawn(2, 4, 3, 3, seed=12)
    same = -5 * student.flip(1)
    assert loss_of("attention-transfer", same, teacher).item() == pytest.approx(
        loss_of("attention-transfer", student, teacher).item(), rel=1e-12
    )


def test_similarities_do_not_see_rotations():
    student, teacher = drawn(5, 6, seed=13), drawn(5, 3, seed=14)
    rotation = torch.linalg.qr(drawn(6, 6, seed=15)).Q
    assert loss_of("similarity-preserving", student @ rotation, teacher).item() == pytest.approx(
        loss_of("similarity-preserving", student, teacher).item(), rel=1e-10
    )


def test_similarities_of_one_sample_tell_nothing():
    assert loss_of("similarity-preserving", drawn(1, 4, seed=16), drawn(1, 4, seed=17)).item() == pytest.approx(0)


def test_kl_sees_logits_up_to_a_constant_of_each_position():
    teacher = drawn(4, 3, 2, 2, seed=18)
    shifted = teacher + drawn(4, 1, 2, 2, seed=19)
    assert loss_of("logits-kl", shifted, teacher).item() == pytest.approx(0, abs=1e-14)
    shifted[0, 0, 0, 0] += 0.01
    assert loss_of("logits-kl", shifted, teacher).item() > 1e-8


def test_kl_slope_does_not_vanish_with_the_temperature():
    """Hinton et al.: for high T and centered logits the slope of T² KL tends to (s − t)/(N classes)."""
    student, teacher = drawn(1, 4, seed=20), drawn(1, 4, seed=21)
    student, teacher = (z - z.mean() for z in (student, teacher))
    student.requires_grad_()
    loss_of("logits-kl", student, teacher, temperature=1e4).backward()
    torch.testing.assert_close(student.grad, (student.detach() - teacher) / 4, rtol=1e-3, atol=1e-4)


def test_temperature_is_four_if_not_said():
    pair = drawn(3, 4, seed=22), drawn(3, 4, seed=23)
    assert loss_of("logits-kl", *pair) == loss_of("logits-kl", *pair, temperature=4.0)
    assert loss_of("logits-kl", *pair) != loss_of("logits-kl", *pair, temperature=1.0)


def test_teacher_that_rules_a_class_out():
    teacher, student = torch.tensor([[0.0, -torch.inf]]), torch.zeros(1, 2, requires_grad=True)
    loss = loss_of("logits-kl", student, teacher, temperature=1.0)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(2))
    torch.testing.assert_close(student.grad, torch.tensor([[-0.5, 0.5]]))
    assert loss_of("logits-kl", teacher.clone(), teacher).item() == 0


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_temperature_that_is_none(temperature):
    with pytest.raises(OptionError, match="positive"):
        make_distillation_loss("logits-kl", temperature)


REFUSED = [
    ("mse", (2, 3, 4, 4), (2, 5, 4, 4)),
    ("mse", (2, 3, 4, 4), (2, 3, 4, 5)),
    ("mse", (3,), (3,)),
    ("attention-transfer", (2, 3, 4, 4), (2, 3, 4, 5)),
    ("attention-transfer", (2, 3, 4), (2, 3, 2, 2)),
    ("attention-transfer", (2, 3), (2, 3)),
    ("cosine", (2, 3, 4), (2, 3)),
    ("cosine", (2, 3), (4, 3)),
    ("logits-kl", (2, 10), (2, 11)),
    ("logits-kl", (2, 1), (2, 1)),
    ("similarity-preserving", (2, 3), (4, 3)),
    ("similarity-preserving", (), ()),
]


@pytest.mark.parametrize(("name", "student", "teacher"), REFUSED, ids=[f"{c[0]} {c[1]} {c[2]}" for c in REFUSED])
def test_shapes_that_do_not_go_together(name, student, teacher):
    with pytest.raises(LossError) as caught:
        loss_of(name, torch.zeros(student), torch.zeros(teacher))
    message = str(caught.value)
    assert name in message
    for shape in (student, teacher):
        assert ("×".join(map(str, shape)) or "scalar") in message
    assert "\n" not in message


def test_which_need_a_projection():
    assert {name for name in DISTILLATION_LOSSES if make_distillation_loss(name).needs_same_channels} == {
        "mse",
        "cosine",
    }
    assert set(DISTILLATION_LOSSES) == set(NAMES)


def test_unknown_name():
    with pytest.raises(UnknownNameError, match="nearest is 'attention-transfer'"):
        make_distillation_loss("atention")


OWN = """
import torch

def l1(student, teacher):
    assert not teacher.requires_grad
    return (student - teacher).abs().mean()

def map_of(student, teacher):
    return student - teacher

def number(student, teacher):
    return 3.0

def broken(student, teacher):
    raise ValueError("two\\nlines")

class Batch:
    needs_same_channels = False

    def __call__(self, student, teacher):
        return student.sum() * 0 + len(student)

constant = 3
"""


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(OWN)
    return path


def test_own_function(own):
    loss = make_distillation_loss(f"{own}:l1")
    student, teacher = drawn(2, 3, seed=24), drawn(2, 3, seed=25)
    assert loss.needs_same_channels
    assert loss(student, teacher.clone().requires_grad_()).item() == np.abs((student - teacher).numpy()).mean()


def test_own_class(own):
    loss = make_distillation_loss(f"{own}:Batch")
    assert not loss.needs_same_channels
    assert loss(torch.ones(3, 2), torch.ones(3, 5)).item() == 3


@pytest.mark.parametrize(
    ("attribute", "words"),
    [("map_of", "returned 2×3"), ("number", "returned a float"), ("broken", "ValueError: two lines")],
)
def test_own_function_that_is_wrong(own, attribute, words):
    loss = make_distillation_loss(f"{own}:{attribute}")
    with pytest.raises(LossError, match=words) as caught:
        loss(torch.ones(2, 3), torch.ones(2, 3))
    assert "\n" not in str(caught.value)


def test_own_thing_that_cannot_be_called(own):
    with pytest.raises(LossError, match="not callable"):
        make_distillation_loss(f"{own}:constant")


def test_errors_of_hessrank_pass_through_an_own_function(own):
    own.write_text(
        "from hessrank.distill.teacher.loss_registry import make_distillation_loss\n"
        "fn = make_distillation_loss('mse').__call__"
    )

    def raised() -> Tensor:
        return make_distillation_loss(f"{own}:fn")(torch.ones(2, 3), torch.ones(2, 4))

    with pytest.raises(LossError, match=r"^distillation loss 'mse' wants"):
        raised()
