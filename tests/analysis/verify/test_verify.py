"""`verify` against brute force, and its reasons on networks made to be wrong for one of them."""

import copy
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import hessrank
from hessrank.analysis.result.ranking import Ranking
from hessrank.analysis.rounding.measured_increase import agree
from hessrank.analysis.verify import Verification
from hessrank.analysis.verify.explain import FACTOR, Parts, Prediction, find_reason
from hessrank.analysis.verify.verification import COLUMNS
from hessrank.errors import HessrankError, ModelError, OptionError, OutputError, UnknownNameError


def network() -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.LeakyReLU(), nn.Linear(8, 3))
    return model.double(), torch.randn(5, 6, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1])


def verified(**options: Any) -> tuple[Ranking, pd.DataFrame]:
    model, x, _ = network()
    ranking = hessrank.rank(model, x, loss="self-mse", bits=(3, 6), increase_probes=512)
    return ranking, hessrank.verify(model, x, ranking, bits=(3, 6), **options).to_frame()


def rounded(value: Tensor, low: Tensor, high: Tensor, bits: int) -> Tensor:
    """Round by torch's own fake quantization."""
    low, high = low.clamp(max=0), high.clamp(min=0)
    scale = (high - low) / (2**bits - 1)
    zero = (-low / scale).round()
    return ((value / scale + zero).round().clamp(0, 2**bits - 1) - zero) * scale


def test_activations_are_measured_as_brute_force_measures_them() -> None:
    _, frame = verified(weights=False)
    model, x, _ = network()
    own = model(x).detach()
    for name in ("0", "1", "2", "3", "4"):
        for bits in (3, 6):

            def quantize(module: nn.Module, args: Any, out: Tensor, bits: int = bits) -> Tensor:
                return rounded(out, out.min(), out.max(), bits)

            handle = model.get_submodule(name).register_forward_hook(quantize)
            with torch.no_grad():
                each = (model(x) - own).square().mean(1)
            handle.remove()
            row = frame[(frame["layer"] == name) & (frame["bits"] == bits)].iloc[0]
            assert row["measured"] == pytest.approx(float(each.mean()), rel=1e-3), (name, bits)  # scales are float32
            assert row["measured_sem"] == pytest.approx(float(each.std()) / 5**0.5, rel=1e-3)


def test_weights_are_measured_as_brute_force_measures_them_and_put_back() -> None:
    model, x, _ = network()
    before = copy.deepcopy(model.state_dict())
    ranking = hessrank.rank(model, x, loss="self-mse", bits=4)
    frame = hessrank.verify(model, x, ranking, bits=4).to_frame()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    own = model(x).detach()
    for name in ("0", "2", "4"):
        moved = copy.deepcopy(model)
        weight = moved.get_submodule(name).weight
        with torch.no_grad():
            weight.copy_(rounded(weight, weight.amin(1, keepdim=True), weight.amax(1, keepdim=True), 4))
            expected = float((moved(x) - own).square().mean())
        row = frame[(frame["layer"] == name) & (frame["tensor"] == "weight")].iloc[0]
        assert row["measured"] == pytest.approx(expected, rel=1e-3), name


def test_prediction_and_measurement_agree_where_they_should() -> None:
    """The squared error of a network that is linear behind a layer *is* ½ eᵀHe: only the draws are noisy."""
    ranking, frame = verified(weights=False)
    last = frame[frame["layer"].isin(["3", "4"])]
    np.testing.assert_allclose(last["ratio"], 1, atol=4 * (2 / 512) ** 0.5)
    assert (last["reason"] == "").all()
    assert list(frame.columns) == list(COLUMNS)
    assert set(frame["predicted"]) <= set(
        ranking.to_frame()[["act_increase_b3", "act_increase_b6"]].to_numpy().ravel()
    )


def test_layers_and_samples_can_be_chosen() -> None:
    _, frame = verified(layers=["2"], num_samples=2, weights=False)
    assert set(frame["layer"]) == {"2"}
    assert len(frame) == 2


def test_batches_change_nothing() -> None:
    one, several = verified()[1], verified(batch_size=4)[1]
    np.testing.assert_allclose(one["measured"], several["measured"], rtol=1e-9)


class TestReasons:
    def test_a_loss_with_a_slope_has_a_first_order_term(self) -> None:
        model, x, labels = network()
        ranking = hessrank.rank(model, (x, labels), loss="cross-entropy", bits=6)
        frame = hessrank.verify(model, (x, labels), ranking, bits=6, weights=False).to_frame()
        off = frame[frame["reason"] == "first-order term"]
        assert not off.empty
        logits = model(x).detach().requires_grad_()
        F.cross_entropy(logits, labels, reduction="none").sum().backward()
        error = rounded(logits.detach(), logits.min(), logits.max(), 6).detach() - logits.detach()
        row = frame[frame["layer"] == "4"].iloc[0]
        if row["reason"]:
            expected = float((logits.grad * error).sum(1).mean())
            assert row["first_order"] == pytest.approx(expected, rel=0.05)

    def test_values_beyond_the_range_are_clipped(self) -> None:
        model, x, _ = network()
        ranking = hessrank.rank(model, x, loss="self-mse", bits=6)
        found = hessrank.verify(model, 4 * x, ranking, bits=6, weights=False)
        row = found.to_frame().set_index("layer").loc["0"]
        assert row["reason"] == "clipping"
        assert row["clipping"] > 0.9
        assert any("not the data" in note for note in found.notes)

    def test_a_large_step_in_a_steep_function_is_not_small(self) -> None:
        class Steep(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inner = nn.Linear(6, 6)

            def forward(self, x: Tensor) -> Tensor:
                return torch.exp(6 * self.inner(x))

        torch.manual_seed(0)
        model, x = Steep().double(), torch.randn(5, 6, dtype=torch.float64)
        ranking = hessrank.rank(model, x, loss="self-mse", bits=2, increase_probes=512)
        frame = hessrank.verify(model, x, ranking, bits=2, weights=False).to_frame().set_index("layer")
        assert frame.loc["inner", "reason"] == "not small"

    def test_errors_that_point_the_same_way_are_not_independent(self) -> None:
        class Summed(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return torch.relu(x).sum((2, 3))

        x = torch.full((3, 1, 8, 8), 0.53, dtype=torch.float64)
        x[:, :, 0, 0] = 1.0
        ranking = hessrank.rank(Summed(), x, loss="self-mse", bits=4, increase_probes=0)
        frame = hessrank.verify(Summed(), x, ranking, bits=4).to_frame().set_index("layer")
        assert frame.loc["relu", "reason"] == "errors not independent"

    @pytest.mark.parametrize(
        ("prediction", "parts", "expected"),
        [
            (Prediction(1, 0.1, True, True), Parts(5, 1, 0, 0), "first-order term"),
            (Prediction(1, 0.1, True, True), Parts(0, 1, -3, 0.5), "not small"),
            (Prediction(1, 0.1, True, True), Parts(0, 4, 1, 0.5), "clipping"),
            (Prediction(1, 0.1, True, True), Parts(0, 4, 1, 0), "errors not independent"),
            (Prediction(1, 0.7, False, True), Parts(0, 2, 0, 0), "noise of the draws"),
            (Prediction(1, 0.1, False, False), Parts(0, 2, 0, 0), "other data"),
            (Prediction(1, 0.1, False, True), Parts(0, 2, 0, 0), "unexplained"),
        ],
    )
    def test_the_largest_part_is_the_reason(self, prediction: Prediction, parts: Parts, expected: str) -> None:
        assert find_reason(prediction, parts) == expected

    @pytest.mark.parametrize(
        ("predicted", "measured", "expected"),
        [(1, 1.4, True), (1, 1.6, False), (1, -1, False), (0, 0, True), (0, 1, False)],
    )
    def test_a_factor_of_one_and_a_half_is_agreement(self, predicted: float, measured: float, expected: bool) -> None:
        assert agree(predicted, measured, FACTOR) is expected


class TestTheResult:
    def test_it_prints_writes_and_draws(self, tmp_path: Any) -> None:
        model, x, _ = network()
        found = hessrank.verify(model, x, hessrank.rank(model, x, bits=(2, 6)), bits=(2, 6))
        assert "predicted against measured" in str(found)
        assert "<pre>" in found._repr_html_()
        found.to_csv(tmp_path / "v.csv")
        read = pd.read_csv(tmp_path / "v.csv", keep_default_na=False)
        assert list(read.columns) == list(COLUMNS)
        assert len(read) == len(found)
        assert found.plot().get_xlabel() == "measured increase of the loss"

    def test_order_is_summed_up_with_an_interval(self) -> None:
        rng = np.random.default_rng(0)
        measured = rng.lognormal(size=60)
        frame = pd.DataFrame(
            {
                "tensor": "activation",
                "bits": 4,
                "predicted": measured * rng.lognormal(0, 0.1, 60),
                "measured": measured,
            }
        ).assign(ratio=lambda f: f["predicted"] / f["measured"], reason="")
        (one,) = Verification(frame, []).agreement
        assert one.low < one.spearman < one.high <= 1
        assert one.spearman > 0.95
        assert (one.count, one.off) == (60, 0)


class TestTrouble:
    def test_a_ranking_of_another_network(self) -> None:
        _, x, _ = network()
        ranking = hessrank.rank(nn.Sequential(nn.Linear(6, 3), nn.ReLU()), x.float())
        with pytest.raises(ModelError, match=r"not in the network .* was it made of another one"):
            hessrank.verify(nn.Sequential(nn.Flatten(), nn.Sequential(nn.Linear(6, 3))), x.float(), ranking)

    def test_bits_that_were_not_predicted(self) -> None:
        model, x, _ = network()
        with pytest.raises(OptionError, match="predicts nothing at 5 bits; it does at 3, 6"):
            hessrank.verify(model, x, hessrank.rank(model, x, bits=(3, 6)), bits=5)

    def test_an_unknown_layer(self) -> None:
        model, x, _ = network()
        with pytest.raises(UnknownNameError, match="no layer named '9'"):
            hessrank.verify(model, x, hessrank.rank(model, x), layers=["9"])

    def test_no_record(self, tmp_path: Any) -> None:
        model, x, _ = network()
        hessrank.rank(model, x).to_csv(tmp_path / "r.csv")
        (tmp_path / "r.json").unlink()
        with pytest.raises(OptionError, match="no record"):
            hessrank.verify(model, x, Ranking.read(tmp_path / "r.csv"))

    def test_a_loss_that_needs_a_target(self) -> None:
        model, x, _ = network()
        with pytest.raises(HessrankError, match="needs a target"):
            hessrank.verify(model, x, hessrank.rank(model, x), loss="mse")

    def test_a_folder_that_is_not_there(self, tmp_path: Any) -> None:
        model, x, _ = network()
        found = hessrank.verify(model, x, hessrank.rank(model, x, bits=4), bits=4, weights=False)
        with pytest.raises(OutputError):
            found.to_csv(tmp_path / "none" / "v.csv")
