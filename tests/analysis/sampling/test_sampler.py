"""Rates that are corrected while sampling, and samples that cannot share a batch."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hessrank.analysis.estimators import EstimatorChoice
from hessrank.analysis.rank import rank
from hessrank.analysis.sampling.probe_runner import split_into_chunks
from hessrank.analysis.sampling.sampler import SamplingPart
from hessrank.errors import LossError, ModelError

WANTED = (1.0, 4.0, 0.0)  # a variance of 0: a layer that has none


def _part(deviations: tuple[float, ...], probes: int, rate: float = 2.0, at_least: int = 1) -> SamplingPart:
    """Return a part that has seen so many probes of sample 1, which spread as told."""
    choice = EstimatorChoice(
        "hutchinson", ("a", "b", "c"), (), "", rate=rate, at_least=at_least, hutchinson=WANTED, sample=1
    )
    part = SamplingPart.of(choice, 3)
    signs = np.where(np.arange(probes) % 2, 1.0, -1.0)
    for sign in signs:
        for sample, scale in enumerate((100.0, 1.0, 0.01)):  # what others spread does not matter
            part.found.layers.add([sample], 5 + scale * sign * np.array(deviations)[:, None])
    return part


def test_the_spread_of_the_pilots_sample_corrects_the_rate() -> None:
    part = _part((1.5, 1.0, 0.0), 20)
    assert part.rate() == pytest.approx(1.5**2 * 20 / 19)  # the first layer: 2.25 of 1; the second: 1 of 4


def test_a_few_probes_correct_nothing() -> None:
    assert _part((9.0, 9.0, 0.0), 15).rate() == 2.0
    assert _part((9.0, 9.0, 0.0), 16).rate() != 2.0


@pytest.mark.parametrize(("deviation", "rate"), [(0.0, 0.25), (1e-3, 0.25), (50.0, 8.0)])
def test_a_rate_has_bounds(deviation: float, rate: float) -> None:
    assert _part((deviation, 0.0, 0.0), 16).rate() == rate


def test_a_part_catches_up_or_waits() -> None:
    part = _part((1.5, 1.0, 0.0), 20, at_least=8)
    part.until = 20
    part.look_ahead(32)
    assert (part.taken, part.until) == (20, 80)  # 32 times 2.37, in eights
    assert [len(chunk) for chunk in split_into_chunks(range(part.taken, part.until))] == [16, 16, 16, 12]
    part.look_ahead(16)
    assert (part.taken, part.until) == (80, 80)


def test_without_a_pilot_all_take_the_same() -> None:
    part = SamplingPart.of(EstimatorChoice("hutchinson", ("a",), (), ""), 1)
    part.look_ahead(16)
    assert (part.taken, part.until) == (0, 16)


class _Loop(nn.Module):
    """Does some samples once, others three times."""

    def __init__(self) -> None:
        super().__init__()
        self.turn, self.out = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3 if x[0, 0] > 0 else 1):
            x = torch.tanh(self.turn(x))
        return self.out(x)


class _OneAtATime(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.out = nn.Linear(6, 5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.first(x.view(1, 6)).relu())


def _other_shapes() -> tuple[nn.Module, Any]:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 1, 3)), [torch.randn(1, n, n) for n in (8, 9)]


LONELY = {
    "loops of other lengths": (lambda: (_Loop(), torch.tensor([[1.0], [-1.0]]) * torch.rand(2, 6)), "layer '"),
    "one at a time only": (lambda: (_OneAtATime(), torch.randn(3, 6)), "two samples at once do not work"),
    "other shapes": (_other_shapes, "the samples are of several sizes"),
}


@pytest.mark.parametrize("name", LONELY)
def test_samples_that_cannot_share_a_batch_go_one_by_one(name: str) -> None:
    make, reason = LONELY[name]
    torch.manual_seed(0)
    model, data = make()
    alone = rank(model, data, loss="self-mse", max_probes=4)
    together = rank(model, data, loss="self-mse", max_probes=4, batch_size=2)
    assert not any("one by one" in note for note in alone.warnings)
    assert any(note.startswith(reason) and note.endswith("they went one by one") for note in together.warnings)
    np.testing.assert_array_equal(alone.to_frame()["trace"], together.to_frame()["trace"])


def test_a_loss_without_a_second_derivative_in_torch_is_named() -> None:
    data = torch.randn(3, 4), torch.tensor([0, 1, 2])
    with pytest.raises(LossError, match="'multi_margin_loss' has no second derivative in torch"):
        rank(nn.Linear(4, 3), data, loss=F.multi_margin_loss)


def test_writing_over_what_a_gradient_needs_is_one_line() -> None:
    class Overwriting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.out = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            y = self.first(x)
            if x.sum() > -1e9:  # cannot be traced
                y[:, :2].relu_()
                y += 1
            return self.out(y)

    with pytest.raises(ModelError, match="writes over an activation that its own gradient needs") as caught:
        rank(Overwriting(), torch.randn(2, 4), loss="self-mse")
    assert "\n" not in str(caught.value)
