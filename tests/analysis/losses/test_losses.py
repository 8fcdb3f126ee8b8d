"""Losses: per sample, their curvature, and what they refuse."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hessrank.analysis.losses import LOSSES, curvature_times, make_loss
from hessrank.errors import HessrankError, LossError, UnknownNameError
from hessrank.network.outputs import detach, output_tensors

torch.manual_seed(0)
LOGITS, OTHER = torch.randn(3, 4, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
DENSE, DENSE_OTHER = (torch.randn(2, 4, 3, 2, dtype=torch.float64) for _ in range(2))
SEQUENCE = torch.randn(2, 5, 4, dtype=torch.float64)
NAMED = {"logits": SEQUENCE, "hidden": LOGITS[:2]}
SEQUENCE_LABELS = torch.tensor([[0, 3, -100, 1, 2], [-100, 1, 1, -100, 0]])
LABELS = torch.tensor([0, 3, 1])
DENSE_LABELS = torch.tensor([[[0, 1], [2, 3], [-100, 0]], [[1, 1], [2, -100], [3, 0]]])

FACTORED: list[tuple[str, str, Any, Any]] = [
    ("self logits", "self", LOGITS, LOGITS),
    ("self image", "self", DENSE, DENSE),
    ("self one column", "self", LOGITS[:, :1], LOGITS[:, :1]),
    ("self two outputs", "self", (LOGITS, SEQUENCE[:1].expand(3, 5, 4)), (LOGITS, SEQUENCE[:1].expand(3, 5, 4))),
    ("self-kl dense", "self-kl", DENSE, DENSE),
    ("self-kl sequence", "self-kl", SEQUENCE, SEQUENCE),
    ("self-mse logits", "self-mse", LOGITS, LOGITS),
    ("mse", "mse", DENSE, DENSE_OTHER),
    ("charbonnier", "charbonnier", DENSE * 1e-3, DENSE_OTHER * 1e-3),
    ("cross-entropy", "cross-entropy", LOGITS, LABELS),
    ("cross-entropy soft labels", "cross-entropy", LOGITS, OTHER.softmax(1)),
    ("cross-entropy dense ignored", "cross-entropy", DENSE, DENSE_LABELS),
    ("cross-entropy sequence", "cross-entropy", SEQUENCE, SEQUENCE_LABELS),
    ("cross-entropy named sequence", "cross-entropy", {"logits": SEQUENCE}, SEQUENCE_LABELS),
    ("self named logits", "self", NAMED, NAMED),
    ("cross-entropy mapping", "cross-entropy", {"hidden": OTHER, "logits": LOGITS}, LABELS),
]


@pytest.mark.parametrize(("name", "output", "target"), [c[1:] for c in FACTORED], ids=[c[0] for c in FACTORED])
def test_factor_is_a_root_of_the_curvature(name: str, output: Any, target: Any) -> None:
    """S Sᵀ w = B w for every unit vector w: Sᵀ by autograd through the linear map S."""
    loss = make_loss(name)
    shapes = output_tensors(output)
    for index in range(sum(t.numel() for t in shapes)):
        flat = torch.zeros(sum(t.numel() for t in shapes), dtype=torch.float64)
        flat[index] = 1
        w = [part.reshape(t.shape) for part, t in zip(flat.split([t.numel() for t in shapes]), shapes, strict=True)]
        probe = [torch.zeros_like(part, requires_grad=True) for part in w]
        mapped = loss.factor(detach(output), target, probe)
        assert mapped is not None
        transposed = [torch.zeros_like(part) for part in w]
        for m, part in zip(mapped, w, strict=True):
            if m.requires_grad:
                found_part = torch.autograd.grad(m, probe, part, allow_unused=True, retain_graph=True)
                transposed = [t if f is None else t + f for t, f in zip(transposed, found_part, strict=True)]
        found = loss.factor(detach(output), target, transposed)
        assert found is not None
        for a, b in zip(found, curvature_times(loss, output, target, w), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_per_sample_values_are_torchs_own() -> None:
    torch.testing.assert_close(
        make_loss("cross-entropy").per_sample(LOGITS, LABELS), F.cross_entropy(LOGITS, LABELS, reduction="none")
    )
    dense = make_loss("cross-entropy").per_sample(DENSE, DENSE_LABELS)
    torch.testing.assert_close(dense[1], F.cross_entropy(DENSE[1:], DENSE_LABELS[1:]))
    mse = make_loss("mse").per_sample(DENSE, DENSE_OTHER)
    torch.testing.assert_close(mse[0], F.mse_loss(DENSE[0], DENSE_OTHER[0]))
    divergence = F.kl_div(LOGITS.log_softmax(1), OTHER.log_softmax(1), reduction="none", log_target=True).sum(1)
    torch.testing.assert_close(make_loss("self").per_sample(LOGITS, OTHER), divergence)
    both = make_loss("self").per_sample((LOGITS[:2], DENSE), (OTHER[:2], DENSE_OTHER))
    torch.testing.assert_close(both, divergence[:2] + (DENSE - DENSE_OTHER).square().flatten(1).mean(1))


def test_cross_entropy_with_classes_last() -> None:
    loss = make_loss("cross-entropy")
    expected = torch.stack([F.cross_entropy(z, t) for z, t in zip(SEQUENCE, SEQUENCE_LABELS, strict=True)])
    for output in (SEQUENCE, {"logits": SEQUENCE}):
        torch.testing.assert_close(loss.per_sample(output, SEQUENCE_LABELS), expected)
    probabilities = torch.rand(2, 5, 4, dtype=torch.float64).softmax(-1)
    expected = torch.stack([F.cross_entropy(z, t) for z, t in zip(SEQUENCE, probabilities, strict=True)])
    torch.testing.assert_close(loss.per_sample({"logits": SEQUENCE}, probabilities), expected)


def test_as_many_classes_as_positions_are_told_apart_by_the_name_alone() -> None:
    square, labels = SEQUENCE[:, :4], SEQUENCE_LABELS[:, :4].clamp(min=0)
    loss = make_loss("cross-entropy")
    torch.testing.assert_close(loss.per_sample(square, labels)[0], F.cross_entropy(square[:1], labels[:1]))
    torch.testing.assert_close(loss.per_sample({"logits": square}, labels)[0], F.cross_entropy(square[0], labels[0]))


def test_what_stands_beside_a_result_is_no_output() -> None:
    beside = {"loss": torch.tensor(1.0), "hidden_states": (DENSE,), "attentions": (DENSE,), "cache": [DENSE]}
    more = {"past_key_values": (DENSE,), "decoder_attentions": (DENSE,), "router_hidden_states": DENSE}
    assert output_tensors({**beside, "logits": LOGITS, **more}) == [LOGITS]
    assert len(output_tensors({"hidden_states": (DENSE, DENSE_OTHER)})) == 2  # there is nothing else
    assert len(output_tensors({"out": LOGITS, "aux": OTHER})) == 2


@pytest.mark.parametrize(
    ("output", "logits"),
    [
        (LOGITS, ["3×4"]),
        ({"out": LOGITS}, ["3×4"]),
        ({"logits": SEQUENCE}, ["2×5×4"]),
        ({"start_logits": LOGITS, "end_logits": LOGITS}, ["3×4", "3×4"]),
        ({"last_hidden_state": SEQUENCE, "pooler_output": LOGITS}, []),
        ({"image_embeds": LOGITS}, []),
        ({"logits": LOGITS[:, :1]}, []),
        (SEQUENCE, []),
    ],
)
def test_what_self_takes_for_logits(output: Any, logits: list[str]) -> None:
    assert make_loss("self").logits_among(output) == logits


def test_labels_of_any_integer_type_are_labels() -> None:
    expected = make_loss("cross-entropy").per_sample(LOGITS, LABELS)
    for dtype in (torch.int32, torch.int16, torch.uint8):
        torch.testing.assert_close(make_loss("cross-entropy").per_sample(LOGITS, LABELS.to(dtype)), expected)


@pytest.mark.parametrize("name", ["self", "self-kl", "self-mse"])
def test_self_losses_are_zero_with_zero_slope_at_the_models_own_output(name: str) -> None:
    z = LOGITS.clone().requires_grad_()
    value = make_loss(name).per_sample(z, LOGITS)
    (slope,) = torch.autograd.grad(value.sum(), z)
    assert value.abs().max() < 1e-15
    assert slope.abs().max() < 1e-15


def test_a_custom_loss_is_evaluated_sample_by_sample() -> None:
    def mean(output: Tensor, target: Tensor) -> Tensor:
        return F.mse_loss(output, target)

    torch.testing.assert_close(
        make_loss(mean).per_sample(DENSE, DENSE_OTHER), make_loss("mse").per_sample(DENSE, DENSE_OTHER)
    )


def test_a_custom_loss_without_target_needs_none() -> None:
    assert not make_loss(lambda output: output.square().sum()).needs_target
    assert make_loss(F.mse_loss).needs_target


@pytest.mark.parametrize("name", ["l1", "L1", "mae"])
def test_l1_is_refused_with_the_reason_and_the_remedy(name: str) -> None:
    with pytest.raises(LossError, match=r"zero second derivative.*self.*mse.*charbonnier"):
        make_loss(name)


def test_an_unknown_loss_gets_the_nearest_name() -> None:
    with pytest.raises(UnknownNameError, match="no loss named 'crossentropy'; nearest is 'cross-entropy'"):
        make_loss("crossentropy")


BAD: list[tuple[str, str, Any, Any, str]] = [
    ("label too large", "cross-entropy", LOGITS, torch.tensor([0, 4, 1]), r"label 4 is .*4 classes, 0 to 3"),
    ("label negative", "cross-entropy", LOGITS, torch.tensor([0, -1, 1]), "label -1 is out of range"),
    ("labels of another shape", "cross-entropy", LOGITS, torch.tensor([[0], [1], [2]]), "want labels 3,.* 3×1"),
    ("two outputs", "cross-entropy", (LOGITS, LOGITS), LABELS, "one tensor of logits"),
    ("shapes differ", "mse", LOGITS, LOGITS[:, :2], "output is 3×4 and the target 3×2"),
]


@pytest.mark.parametrize(("name", "output", "target", "message"), [c[1:] for c in BAD], ids=[c[0] for c in BAD])
def test_bad_targets_are_explained(name: str, output: Any, target: Any, message: str) -> None:
    with pytest.raises(LossError, match=message):
        make_loss(name).per_sample(output, target)


def test_another_label_is_ignored_as_torch_ignores_it() -> None:
    labels = torch.randint(0, 3, (2, 4, 5), dtype=torch.uint8)
    labels[0, :2], labels[1, 3, 3] = 255, 255
    logits = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    with pytest.raises(LossError, match="label 255 is out of range: there are 3 classes") as told:
        make_loss("cross-entropy").per_sample(logits, labels)
    name = str(told.value).rpartition("the loss is ")[2]
    loss = make_loss(name)
    expected = [
        F.cross_entropy(z[None], t[None].long(), ignore_index=255) for z, t in zip(logits, labels, strict=True)
    ]
    torch.testing.assert_close(loss.per_sample(logits, labels), torch.stack(expected))
    as_torch = torch.where(labels == 255, -100, labels.long())
    (factor,), (same,) = (
        make.factor(logits, t, [logits]) for make, t in ((loss, labels), (make_loss("cross-entropy"), as_torch))
    )
    torch.testing.assert_close(factor, same)
    assert loss.name == name == "cross-entropy,ignore_index=255"
    with pytest.raises(LossError, match="label -100 is out of range"):
        loss.per_sample(logits, as_torch)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cross-entropy,ignore=3", "no option of loss 'cross-entropy' named 'ignore'; nearest is 'ignore_index'"),
        ("cross-entropy,ignore_index=", "write a whole number, as cross-entropy,ignore_index=255"),
        ("mse,ignore_index=3", "no option of loss 'mse' named 'ignore_index'; there are none"),
        ("crossentropy,ignore_index=3", "nearest is 'cross-entropy'"),
    ],
)
def test_options_that_a_loss_does_not_take(name: str, message: str) -> None:
    with pytest.raises(HessrankError, match=message):
        make_loss(name)


def test_a_custom_loss_that_returns_no_number_is_explained() -> None:
    with pytest.raises(LossError, match=r"returned shape \(1, 4\) for one sample"):
        make_loss(lambda output, target: output - target).per_sample(LOGITS, LOGITS)


def test_a_loss_that_ignores_the_output_is_explained() -> None:
    with pytest.raises(LossError, match="does not depend on the network's output"):
        curvature_times(make_loss(lambda output, target: target.sum()), LOGITS, LOGITS, [LOGITS])


def test_every_registered_loss_is_tested_here() -> None:
    assert set(LOSSES) == {case[1] for case in FACTORED}
