"""What the pilot finds: variances against exact ones, the cheapest cuts against all others."""

from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from helpers.small_networks import exact_traces
from torch import Tensor, nn

from hessrank.analysis.estimators import CurvaturePropagation, Segment, Work
from hessrank.analysis.estimators.curvature_propagation.estimator import Propagation
from hessrank.analysis.estimators.curvature_propagation.layer_recording import Layout
from hessrank.analysis.estimators.curvature_propagation.pilot import choose_cuts
from hessrank.analysis.estimators.curvature_propagation.probe_variance import ProbeVariance
from hessrank.analysis.estimators.curvature_propagation.segments import (
    MeasuredSegment,
    PlannedSegment,
    SegmentCosts,
    choose_segments,
)
from hessrank.analysis.estimators.probes import Rademacher
from hessrank.analysis.losses import make_loss
from hessrank.analysis.rank import rank
from hessrank.data.batch import Batch
from hessrank.network.frozen_model import freeze
from hessrank.network.layer_facts import SampleAxis
from hessrank.network.network import Network


class Mixer(nn.Module):
    """Two residual blocks of attention and a gated MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(6) for _ in range(4))
        self.qkv = nn.ModuleList(nn.Linear(6, 18) for _ in range(2))
        self.up, self.gate, self.down = (
            nn.ModuleList(nn.Linear(*sizes) for _ in range(2)) for sizes in ((6, 8), (6, 8), (8, 6))
        )
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        for i in range(2):
            q, k, v = self.qkv[i](self.norms[2 * i](x)).chunk(3, -1)
            x = x + torch.softmax(q @ k.transpose(1, 2), -1) @ v
            h = self.norms[2 * i + 1](x)
            x = x + self.down[i](F.gelu(self.gate[i](h)) * self.up[i](h))
        return self.head(x.mean(1))


def mixer() -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(2)
    return Mixer().double().eval(), torch.randn(4, 3, 6, dtype=torch.float64), torch.tensor([0, 1, 2, 0])


@pytest.mark.parametrize("rank", [0, 3])
@pytest.mark.parametrize("last", [6, None], ids=["from the middle", "from the output"])
def test_variances_are_the_true_ones(rank: int, last: int | None) -> None:
    """2(‖H‖² − ΣHₖₖ²) from the vectors, and the spread of ⟨u, s⟩, within what 1000 probes can tell."""
    model, x, labels = mixer()
    one = Batch((x[:1],), target=labels[:1])
    with freeze(model):
        network = Network(model, one)
        names = [layer.name for layer in network.layers]
        axes = dict.fromkeys(names, SampleAxis())
        segment = Segment(0, len(names) - 1 if last is None else last, rank)
        work = Work(network, make_loss("cross-entropy"), one, Rademacher(0), range(1000), names, [], axes, 100)
        spread = ProbeVariance(work, Propagation(work, segment, Layout.of(network, one).region(0, segment.last)))
        again = replace(work, indices=range(1000, 2000))  # of the same seed: the directions set apart depend on it
        other = torch.stack([e.layers for e in CurvaturePropagation(segment)(again)])[:, :, 0].numpy()
        hessians = [_hessian(network, one, layer) for layer in range(segment.last + 1)]
    assert np.isnan(spread.variance[segment.last + 1 :]).all()
    for layer, hessian in enumerate(hessians):
        true = 2 * float(hessian.square().sum() - hessian.diagonal().square().sum())
        scale = 2 * float(hessian.square().sum())
        noise = spread.variance[layer] / 1000**0.5  # of a U-statistic of so many draws, roughly
        assert spread.hutchinson[layer] == pytest.approx(true, abs=0.25 * scale + 8 * noise), names[layer]
        assert spread.variance[layer] == pytest.approx(other[:, layer].var(ddof=1), rel=0.5, abs=1e-18), names[layer]


def _hessian(network: Network, batch: Batch, place: int) -> Tensor:
    values: dict[int, Tensor] = {}

    def look(layer: object, call: object, value: Tensor) -> None:
        values[layer.execution_index] = value  # type: ignore[attr-defined]

    network.run(batch, look)

    def loss(value: Tensor) -> Tensor:
        def put(layer: object, call: object, old: Tensor) -> Tensor | None:
            return value if layer.execution_index == place else None  # type: ignore[attr-defined]

        return F.cross_entropy(network.run(batch, put, differentiable=True).output, batch.target)

    size = values[place].numel()
    return torch.autograd.functional.hessian(loss, values[place]).reshape(size, size)  # type: ignore[no-any-return]


WORK = np.ones(30)
HUTCHINSON = np.ones(30)
EVERYTHING = range(30)


def measured(last: int, variance: list[float]) -> MeasuredSegment:
    padded = np.full(len(WORK), np.nan)
    padded[: last + 1] = variance
    return MeasuredSegment(Segment(0, last, 4), 4, last == len(WORK) - 1, padded)


def test_a_quiet_output_serves_all() -> None:
    plan = choose_segments(
        EVERYTHING, [measured(12, [9.0] * 13), measured(29, [0.1] * 30)], (HUTCHINSON, HUTCHINSON), SegmentCosts(WORK)
    )
    assert [(part.segment, part.rate, part.layers) for part in plan] == [(Segment(0, 29, 4), 0.5, tuple(EVERYTHING))]


def test_what_no_cut_does_well_is_left_to_hutchinson() -> None:
    noisy = [1e6, 0.5, 1e6] + [0.5] * 27
    plan = choose_segments(EVERYTHING, [measured(29, noisy)], (HUTCHINSON, HUTCHINSON), SegmentCosts(WORK))
    assert [(part.segment, part.layers) for part in plan] == [(Segment(0, 29, 4), (1, *range(3, 30))), (None, (0, 2))]


def test_a_noisy_layer_may_be_worth_more_probes() -> None:
    plan = choose_segments(EVERYTHING, [measured(29, [2.5] * 30)], (HUTCHINSON, HUTCHINSON), SegmentCosts(WORK))
    assert [(part.segment, part.rate) for part in plan] == [(Segment(0, 29, 4), 4.0)]


def test_nothing_but_noise_is_hutchinson() -> None:
    cuts = [measured(12, [1e9] * 13), measured(29, [1e9] * 30)]
    assert choose_segments(EVERYTHING, cuts, (HUTCHINSON, HUTCHINSON), SegmentCosts(WORK)) == [
        PlannedSegment(None, tuple(EVERYTHING))
    ]


def test_no_layer_is_worse_off_and_all_are_served_once() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        cuts = [measured(last, list(rng.lognormal(0, 2, last + 1))) for last in (9, 19, 29)]
        plan = choose_segments(EVERYTHING, cuts, (HUTCHINSON, HUTCHINSON), SegmentCosts(WORK))
        assert sorted(layer for part in plan for layer in part.layers) == list(EVERYTHING)
        for part in plan:
            for layer in part.layers if part.segment else ():
                cut = next(c for c in cuts if c.segment.last == part.segment.last)
                assert cut.variance[layer] <= part.rate * HUTCHINSON[layer]
        inside = [set(range(p.segment.first, p.segment.last + 1)) for p in plan if p.segment]
        assert all(not a & b for a, b in combinations(inside, 2))


def test_cuts_lie_where_one_layer_is_read_behind() -> None:
    model, x, labels = mixer()
    with freeze(model):
        one = Batch((x[:1],), target=labels[:1])
        network = Network(model, one)
        layout = Layout.of(network, one)
    names = [layer.name for layer in network.layers]
    assert [names[i] for i in choose_cuts(layout, range(len(names)))] == [
        "x",
        "add",
        "add_1",
        "add_2",
        "add_3",
        "mean",
        "head",
    ]


def ranked(max_probes: int = 16, **options: Any) -> pd.DataFrame:
    model, x, labels = mixer()
    ranking = rank(model, (x, labels), loss="cross-entropy", max_probes=max_probes, tolerance=1e-6, **options)
    return ranking.to_frame().set_index("layer")


def test_auto_is_right_and_says_what_it_chose() -> None:
    frame = ranked(max_probes=64)
    model, x, labels = mixer()
    exact = exact_traces(model, x, F.cross_entropy, labels)
    chosen = set(frame["estimator"])
    assert "curvature-propagation" in chosen
    assert set(frame.loc[frame["estimator"] == "exact", "probed_at"]) == {"output"}
    probed = frame[frame["estimator"] == "curvature-propagation"]
    assert set(" ".join(probed["probed_at"]).split()) <= {"output", *frame.index}
    assert (
        frame.loc[frame["estimator"] == "hutchinson"].index
        == frame.loc[frame["estimator"] == "hutchinson", "probed_at"]
    ).all()
    for name, traces in exact.items():  # the samples are all there are: only probe noise, and sem holds more
        assert abs(frame.loc[name, "trace"] - np.mean(traces)) < 4 * frame.loc[name, "sem"], name


def test_the_same_command_gives_the_same_numbers_and_another_batch_size_to_rounding() -> None:
    one, again, several = ranked(), ranked(), ranked(batch_size=3)
    pd.testing.assert_frame_equal(one, again)
    np.testing.assert_allclose(several["trace"], one.loc[several.index, "trace"], rtol=1e-6)
    np.testing.assert_allclose(several["weight_trace"], one.loc[several.index, "weight_trace"], rtol=1e-6)


def test_weight_traces_are_within_four_standard_errors_of_hutchinson() -> None:
    auto, loop = ranked(), ranked(estimator="hutchinson", seed=1)
    rows = auto["weight_trace"].dropna().index
    assert len(rows) == 9
    error = np.hypot(auto.loc[rows, "weight_sem"], loop.loc[rows, "weight_sem"])
    assert (np.abs(auto.loc[rows, "weight_trace"] - loop.loc[rows, "weight_trace"]) < 4 * error).all()


def test_samples_that_mix_are_left_to_hutchinson() -> None:
    class Mixing(Mixer):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x - x.mean(0) / 2)

    torch.manual_seed(0)
    ranking = rank(Mixing(), (torch.randn(2, 3, 6), torch.tensor([0, 1])), loss="cross-entropy", max_probes=2)
    assert set(ranking.to_frame()["estimator"]) == {"hutchinson", "exact"}


def test_memory_that_runs_out_makes_fewer_copies() -> None:
    class Hungry(Mixer):
        def forward(self, x: Tensor) -> Tensor:
            if len(x) > 2:
                raise torch.OutOfMemoryError("too much")
            return super().forward(x)

    torch.manual_seed(2)
    model, (_, x, labels) = Hungry().double().eval(), mixer()
    ranking = rank(model, (x, labels), loss="cross-entropy", max_probes=4)
    assert any("memory ran out" in note for note in ranking.warnings)
    assert np.isfinite(ranking.to_frame()["trace"]).all()


def test_curvature_propagation_has_the_error_of_hutchinson() -> None:
    """Whatever the pilot thought: its variance over its own probes is Hutchinson's over as many as others take."""
    model, x, labels = mixer()
    data, options = (x[:1], labels[:1]), {"loss": "cross-entropy", "tolerance": 1e-6, "weights": False}
    found = rank(model, data, max_probes=64, **options).to_frame().set_index("layer")
    slow = rank(model, data, max_probes=512, estimator="hutchinson", **options).to_frame().set_index("layer")
    propagated = found[found["estimator"] == "curvature-propagation"]
    assert len(propagated) >= 10
    of_hutchinson = slow.loc[propagated.index, "sem"] * np.sqrt(512 / 64)
    assert (propagated["sem"] <= 1.5 * of_hutchinson).all()  # as well as some hundred probes know a spread


def test_a_careful_guess_decides_and_the_likely_one_is_aimed_at() -> None:
    careful = HUTCHINSON * 0.6
    careful[3] = 0.0
    segment, left = choose_segments(EVERYTHING, [measured(29, [0.5] * 30)], (HUTCHINSON, careful), SegmentCosts(WORK))
    assert (segment.layers, segment.rate) == ((0, 1, 2, *range(4, 30)), 1.0)
    assert segment.hutchinson == (1.0,) * 29
    assert (left.segment, left.layers) == (None, (3,))
