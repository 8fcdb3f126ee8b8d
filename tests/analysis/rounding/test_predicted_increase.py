"""The predicted increases of a ranking: from rounding errors where they can be, from traces elsewhere."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.small_networks import CASES, Gate, Reused
from torch import Tensor, nn

from hessrank.analysis.estimators.base import Work
from hessrank.analysis.rank import rank
from hessrank.analysis.result.ranking import Ranking
from hessrank.analysis.rounding.quadratic_form import Grids, rounding_increase
from hessrank.analysis.rounding.quantize import quantize, quantize_weight
from hessrank.analysis.verify.verify import verify
from hessrank.errors import OptionError

FEW = [f"act_increase_b{b}" for b in (4, 6, 8, 10)]
FEW_OF_WEIGHTS = [f"weight_increase_b{b}" for b in (4, 6, 8, 10)]
BITS = (4, 6, 8, 10)


class Means(nn.Module):
    """A linear network whose output reacts to the mean of its input, and to nothing else."""

    def __init__(self, outputs: int = 3) -> None:
        super().__init__()
        self.pool, self.last = nn.AdaptiveAvgPool2d(1), nn.Linear(1, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.pool(x).flatten(1))


def flat_images(samples: int = 2) -> Tensor:
    """Images that are one gray value but for two pixels: all of it is rounded in the same direction."""
    x = torch.full((samples, 1, 8, 8), 0.3)
    x[:, :, 0, 0], x[:, :, 0, 1] = 0, 1
    return x


def chain(outputs: int = 80) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 9), nn.GELU(), nn.Linear(9, 7), nn.ReLU(), nn.Linear(7, outputs))
    return model, torch.randn(5, 6)


def table(ranking: Ranking) -> pd.DataFrame:
    return ranking.to_frame().set_index("layer").sort_values("execution_index")


def test_errors_that_add_up_are_predicted_as_they_are_measured() -> None:
    """The network is linear and its loss quadratic, so ½ eᵀHe is the increase itself.

    One gray value rounds better to 8 bits than to 10; no width is predicted to hurt less than a wider one.
    """
    torch.manual_seed(0)
    model, x = Means(), flat_images()
    found = table(rank(model, x, loss="self-mse", bits=BITS))
    by_trace = table(rank(model, x, loss="self-mse", bits=BITS, increase_probes=0))
    measured = 0.0
    for bits in (10, 8, 6, 4):
        with torch.no_grad():
            measured = max(measured, float((model(quantize(x, 0, 1, bits)) - model(x)).square().mean()))
        assert found.loc["x", f"act_increase_b{bits}"] == pytest.approx(measured, rel=1e-3)
        assert by_trace.loc["x", f"act_increase_b{bits}"] < measured / 20


def test_the_error_of_a_weight_is_the_one_that_it_has() -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(20, 3, bias=False)), torch.rand(4, 20)
    found = table(rank(model, x, loss="self-mse", bits=BITS))
    for bits in (4, 6, 8):
        error = quantize_weight(model[0].weight, 0, bits) - model[0].weight.detach()
        measured = float((x @ error.T).square().mean())
        assert found.loc["0", f"weight_increase_b{bits}"] == pytest.approx(measured, rel=1e-3)


def test_all_widths_are_predicted_by_one_method() -> None:
    model, x = chain()
    found, by_trace = (table(rank(model, x, bits=BITS, increase_probes=n, max_probes=4)) for n in (40, 0))
    for columns in (FEW, FEW_OF_WEIGHTS):
        assert (found[columns].dropna() != by_trace[columns].dropna()).all(axis=None)
    changed = [*FEW, *FEW_OF_WEIGHTS, "act_measured", "weight_measured"]
    pd.testing.assert_frame_equal(found.drop(columns=changed), by_trace.drop(columns=changed))


def test_values_that_are_one_constant_are_predicted_at_every_width() -> None:
    """Behind ReLU and batch norm most values are one constant a channel, and all of these round alike."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv1d(1, 8, 9), nn.ReLU(), nn.BatchNorm1d(8), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, 3)
    )
    with torch.no_grad():
        model[0].bias.fill_(-0.6)
        model[2].running_var.fill_(0.02)
        model[2].bias.copy_(torch.linspace(-1, 1, 8))
    torch.manual_seed(1)
    x = torch.randn(8, 1, 64)
    found = verify(model, x, rank(model.eval(), x, loss="self-mse"), bits=range(4, 13), weights=False).to_frame()
    constant = found[found["layer"] == "2"]
    below = constant["predicted"] < 0.8 * constant["measured"]
    assert not below.any()
    assert (constant["predicted"].to_numpy() >= constant["predicted"].shift(-1).fillna(0).to_numpy()).all()


def test_the_record_says_how_the_increases_came_about() -> None:
    model, x = chain()
    assert rank(model, x, bits=BITS, max_probes=2).info["increases"] == {
        "method": "rounding errors",
        "bits": [4, 6, 8, 10],
        "draws": 256,
        "exact": False,
        "from_trace": {"layers": [], "weights": [], "why": ""},
        "measured": 0,
        "not_trusted": [],
    }
    none = rank(model, x, bits=BITS, max_probes=2, increase_probes=0).info["increases"]
    assert (none["method"], none["bits"], none["draws"]) == ("trace", [], 0)
    assert len(none["from_trace"]["layers"]) == 6
    assert none["from_trace"]["weights"] == ["0", "2", "4"]
    assert none["from_trace"]["why"] == "no probes were asked for"


@pytest.mark.parametrize(("samples", "asked", "draws"), [(5, 1, 5), (5, 11, 11), (1, 1, 2), (1, 7, 7)], ids=str)
def test_probes_are_spread_over_the_samples(samples: int, asked: int, draws: int) -> None:
    model, x = chain()
    assert rank(model, x[:samples], max_probes=2, increase_probes=asked).info["increases"]["draws"] == draws


def test_few_outputs_take_a_whole_basis_and_have_no_noise() -> None:
    model, x = chain(outputs=3)
    some, others = (rank(model, x, bits=BITS, seed=seed) for seed in (0, 1))
    assert some.info["increases"]["exact"]
    assert some.info["increases"]["draws"] == 15
    pd.testing.assert_frame_equal(some.to_frame(), others.to_frame())


def test_as_many_probes_as_outputs_are_a_whole_basis_whatever_the_estimator() -> None:
    model, x = chain(outputs=70)
    random = rank(model, x[:1], bits=BITS, max_probes=2, estimator="gauss-newton", increase_probes=69)
    whole = rank(model, x[:1], bits=BITS, max_probes=2, estimator="gauss-newton", increase_probes=70)
    exact = rank(model, x[:1], bits=BITS, estimator="exact")
    assert not random.info["increases"]["exact"]
    assert whole.info["increases"]["draws"] == 70
    pd.testing.assert_frame_equal(table(whole)[FEW], table(exact)[FEW])
    np.testing.assert_allclose(table(random)[FEW], table(exact)[FEW], rtol=4 * np.sqrt(2 / 69))


def test_the_same_seed_gives_the_same_draws_and_another_one_others(tmp_path: Path) -> None:
    model, x = chain()
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        rank(model, x, seed=seed, max_probes=2, bits=BITS).to_csv(tmp_path / f"{name}.csv")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    one, other = (pd.read_csv(tmp_path / f"{name}.csv").sort_values("execution_index") for name in ("a", "c"))
    assert (one[FEW].to_numpy() != other[FEW].to_numpy()).all()


@pytest.mark.parametrize("batch_size", [2, 5])
def test_batch_size_changes_nothing(batch_size: int) -> None:
    model, x = chain()
    one, many = (table(rank(model.double(), x, max_probes=2, bits=BITS, batch_size=b)) for b in (1, batch_size))
    columns = FEW + FEW_OF_WEIGHTS
    pd.testing.assert_frame_equal(many[columns], one[columns], rtol=1e-9)


def test_more_draws_than_one_forward_pass_serves_are_all_counted() -> None:
    """One output: every draw of ±1 gives the same number, so any mean over them is that number."""
    torch.manual_seed(0)
    model, x = Means(outputs=1), flat_images()
    exact = table(rank(model, x, loss="self-mse", bits=BITS, estimator="exact"))
    found = table(rank(model, x, loss="self-mse", bits=BITS, increase_probes=80, estimator="gauss-newton"))
    np.testing.assert_allclose(found[FEW], exact[FEW], rtol=1e-5)


def test_a_batch_that_memory_ran_out_in_is_not_drawn_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = chain()
    expected, ran_out = table(rank(model.double(), x, max_probes=2, bits=BITS, batch_size=4)), []

    def tight(work: Work, grids: Grids, *, exact: bool) -> Iterator[Tensor]:
        if work.batch.samples == (1,) and 1 not in ran_out:
            ran_out.append(work.copies)
            raise MemoryError
        return rounding_increase(work, grids, exact=exact)

    monkeypatch.setattr("hessrank.analysis.rounding.quadratic_form_sampler.rounding_increase", tight)
    found = table(rank(model.double(), x, max_probes=2, bits=BITS, batch_size=4))
    assert ran_out[-1] == 1
    np.testing.assert_allclose(found[FEW], expected[FEW], rtol=1e-9)


class TestWhereAPlainBackwardPassDoesNotTell:
    """The old formula stays, and the record says so."""

    def test_a_loss_without_a_known_factor(self) -> None:
        model, x = chain(outputs=3)

        def quartic(output: Tensor) -> Tensor:
            return (output**2).sum() + (output**4).sum()

        found, by_trace = (rank(model, x, loss=quartic, max_probes=4, increase_probes=n) for n in (96, 0))
        assert found.info["increases"]["method"] == "trace"
        assert "quartic" in found.info["increases"]["from_trace"]["why"]
        pd.testing.assert_frame_equal(found.to_frame(), by_trace.to_frame())

    def test_layers_of_a_task_loss_before_a_gelu(self) -> None:
        model, x, labels = next(c for c in CASES if c.name == "gelu").make()
        both = (rank(model, (x, labels), loss="cross-entropy", max_probes=4, increase_probes=n) for n in (96, 0))
        found, by_trace = both
        record = found.info["increases"]
        assert record["method"] == "rounding errors"
        assert record["from_trace"]["layers"] == ["input_1", "0", "1", "2"]
        assert record["from_trace"]["weights"] == ["0", "2"]
        assert "Gelu" in record["from_trace"]["why"]
        before, behind = ["input_1", "0", "1", "2"], ["3", "4"]
        pd.testing.assert_frame_equal(table(found).loc[before], table(by_trace).loc[before], check_like=True)
        assert (table(found).loc[behind, FEW] != table(by_trace).loc[behind, FEW]).all(axis=None)
        assert (table(found).loc[["4"], FEW_OF_WEIGHTS] != table(by_trace).loc[["4"], FEW_OF_WEIGHTS]).all(axis=None)

    def test_a_weight_that_multiplies_with_itself_under_a_task_loss(self) -> None:
        torch.manual_seed(0)
        data = torch.randn(3, 5), torch.tensor([0, 1, 2])
        record = rank(Reused(), data, loss="cross-entropy", max_probes=4).info["increases"]
        assert record["from_trace"]["weights"] == ["linear"]
        own = rank(Reused(), data[0], max_probes=4).info["increases"]
        assert own["from_trace"]["weights"] == []

    def test_a_weight_without_a_trace_has_no_increase(self) -> None:
        model, x = chain(outputs=3)
        found = rank(model, x, estimator="pyhessian", max_probes=2, bits=BITS)
        assert table(found)[FEW_OF_WEIGHTS].isna().all(axis=None)
        assert table(found)[FEW].notna().all(axis=None)


class TestRankingByAnIncrease:
    """The table is in the order of the column that it says."""

    @pytest.mark.parametrize("samples", [1, 3, 5])
    @pytest.mark.parametrize("width", [4, 10])
    @pytest.mark.parametrize("outputs", [3, 80])
    def test_the_column_falls_and_places_lie_in_their_intervals(self, samples: int, width: int, outputs: int) -> None:
        model, x = chain(outputs)
        by = f"act_increase_b{width}"
        frame = rank(model, x[:samples], by=by, bits=BITS, max_probes=5, increase_probes=37).to_frame()
        assert (frame[by].diff().dropna() <= 0).all()
        assert frame["rank"].tolist() == list(range(1, 7))
        assert (frame["rank_low"] <= frame["rank"]).all()
        assert (frame["rank"] <= frame["rank_high"]).all()

    @pytest.mark.parametrize("samples", [1, 4])
    def test_layers_from_draws_and_from_traces_in_one_table(self, samples: int) -> None:
        torch.manual_seed(0)
        data = torch.randn(samples, 5), torch.tensor([0, 1, 2, 0])[:samples]
        ranking = rank(Gate(), data, loss="cross-entropy", by="act_increase_b4", max_probes=9)
        frame = ranking.to_frame()
        assert 0 < len(ranking.info["increases"]["from_trace"]["layers"]) < len(frame)
        assert (frame["act_increase_b4"].diff().dropna() <= 0).all()
        assert (frame["rank_low"] <= frame["rank"]).all()
        assert (frame["rank"] <= frame["rank_high"]).all()

    def test_the_intervals_are_those_of_the_draws(self) -> None:
        """Two layers alike in all but noise: a few draws cannot order them, and a note says what would."""
        model, x = chain()
        few = rank(model, x[:1], by="act_increase_b4", max_probes=4096, tolerance=1e-6, increase_probes=8)
        assert few.info["order"]["stopped_by"] == "increase-probes"
        assert few.info["order"]["open_pairs"] > 0
        assert any("8 probes for increases are spent: raise --increase-probes" in note for note in few.warnings)
        wide = few.to_frame()["rank_high"] - few.to_frame()["rank_low"]
        many = rank(model, x[:1], by="act_increase_b4", max_probes=4, tolerance=1e-6, increase_probes=4096).to_frame()
        assert (many["rank_high"] - many["rank_low"]).sum() < wide.sum()

    def test_nothing_is_open_where_nothing_is_random(self) -> None:
        model, x = chain(outputs=3)
        ranking = rank(model, x[:1], by="act_increase_b6")
        assert ranking.info["order"] == {"stopped_by": "exact", "open_pairs": 0, "of_pairs": 5}
        assert ranking.to_frame()["converged"].all()


def test_fewer_probes_than_none_are_refused() -> None:
    model, x = chain()
    with pytest.raises(OptionError, match=r"^increase_probes is -1: it should be 0 \(none\) or more$"):
        rank(model, x, increase_probes=-1)
