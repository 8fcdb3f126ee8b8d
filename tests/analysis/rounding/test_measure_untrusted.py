"""Predictions that cannot be trusted are checked and measured, and no width hurts less than a wider one."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hessrank import rank, verify
from hessrank.analysis.result.ranking import Ranking
from hessrank.analysis.rounding.measure_untrusted import make_monotonic
from hessrank.analysis.rounding.quantize import measure_weight_errors, measure_wiped_share


class Scaled(nn.Module):
    """A layer whose tensor has one large token, and something behind it that does not care how large tokens are."""

    def __init__(self, norm: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.fc, self.norm, self.out = nn.Linear(16, 16), norm, nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.norm(x + self.fc(x))).mean(1)


def rms(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)


NORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "layer norm": nn.LayerNorm(16),
    "root mean square": rms,
    "normalize": lambda x: F.normalize(x, dim=-1),
    "group norm": lambda x: F.group_norm(x.flatten(0, 1), 4).reshape(x.shape),
    "sure softmax": lambda x: (4 * x).softmax(-1),
}


def one_large_token(large: float = 60.0, tokens: int = 10) -> Tensor:
    x = torch.randn(16, tokens, 16)
    x[:, 0] *= large
    return x


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("tokens", [4, 10])
def test_where_all_but_one_token_round_to_zero(name: str, tokens: int) -> None:
    torch.manual_seed(0)
    model, x = Scaled(NORMS[name]).eval(), one_large_token(tokens=tokens)
    ranking = rank(model, x, loss="self-mse", bits=range(4, 11))
    found = verify(model, x, ranking, layers=["add"], bits=range(4, 11), weights=False).to_frame()
    assert found["ratio"].between(0.5, 2).all(), found[["bits", "predicted", "measured"]]
    assert (found["predicted"].diff().dropna() <= 0).all()


def test_what_was_measured_is_said() -> None:
    torch.manual_seed(0)
    model, x = Scaled(NORMS["layer norm"]).eval(), one_large_token()
    ranking = rank(model, x, loss="self-mse", bits=(4, 6, 8))
    widths = ranking["add"]["act_measured"].split()
    assert "4" in widths
    assert "8" not in widths
    (note,) = (note for note in ranking.warnings if "measured, not predicted" in note)
    assert note.startswith(f"{ranking.info['increases']['measured']} increases")
    (line,) = (line for line in str(ranking).splitlines() if " add " in line)
    assert f"*{ranking['add']['act_increase_b4']:.2e}" in line
    assert "* measured: so few bits" in str(ranking)
    measured = verify(model, x, ranking, layers=["add"], bits=4, weights=False).to_frame()["measured"][0]
    assert ranking["add"]["act_increase_b4"] == pytest.approx(measured, rel=1e-6)  # of all 16 samples


def test_too_many_doubts_are_told() -> None:
    torch.manual_seed(0)
    model, x = Scaled(NORMS["layer norm"]).eval(), one_large_token()
    ranking = rank(model, x, loss="self-mse", bits=(4, 5, 6), increase_probes=16)
    left = ranking.info["increases"]["not_trusted"]
    assert left
    assert {"layer", "tensor", "bits"} == set(left[0])
    assert any(f"{len(left)} predicted increases are not trusted" in note for note in ranking.warnings)
    assert not any("not trusted" in note for note in rank(model, x, loss="self-mse", bits=(8,)).warnings)


def test_a_task_loss_is_measured_on_both_sides() -> None:
    """It has a slope: what is even in the error is what the second order predicts."""
    torch.manual_seed(0)
    model, x = Scaled(NORMS["layer norm"]).eval(), one_large_token()
    labels = torch.randint(8, (16,))
    ranking = rank(model, (x, labels), loss="cross-entropy", bits=(4,), max_probes=4)
    assert "4" in ranking["add"]["act_measured"]
    bench = verify(model, (x, labels), ranking, layers=["add"], bits=4, weights=False).to_frame().iloc[0]
    assert ranking["add"]["act_increase_b4"] == pytest.approx(bench["measured"], rel=2)


def test_no_probes_measure_nothing_and_fall_all_the_same() -> None:
    torch.manual_seed(0)
    model, x = Scaled(NORMS["layer norm"]).eval(), one_large_token()
    ranking = rank(model, x, loss="self-mse", bits=range(4, 11), increase_probes=0)
    assert ranking.info["increases"]["measured"] == 0
    falls(ranking)


@pytest.mark.parametrize("seed", range(3))
def test_every_row_falls_with_bits(seed: int) -> None:
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv1d(1, 4, 3), nn.ReLU(), nn.BatchNorm1d(4), nn.Flatten(), nn.Linear(28, 70), nn.GELU()
    )
    falls(rank(model.eval(), torch.randn(4, 1, 9), bits=range(2, 17), increase_probes=8, seed=seed))


def falls(ranking: Ranking) -> None:
    frame = ranking.to_frame()
    for kind in ("act", "weight"):
        columns = [c for c in frame.columns if c.startswith(f"{kind}_increase_b")]
        values = frame[columns].dropna().to_numpy(dtype=float)
        assert (np.diff(np.abs(values), axis=1) <= 0).all()


@pytest.mark.parametrize(
    ("values", "measured", "expected"),
    [
        pytest.param([1, 3, 2], "", [3, 3, 2], id="the most of itself and all wider ones"),
        pytest.param([8, 4, 2], "", [8, 4, 2], id="what falls stays"),
        pytest.param([1, 9, 2], "m", [1, 1, 1], id="a measured one is the ceiling of the wider ones"),
        pytest.param([1, 1, 5], "  m", [5, 5, 5], id="and the floor of the narrower ones"),
        pytest.param([7, 9, 1], "m m", [7, 7, 1], id="between two measured ones"),
        pytest.param([2, 9, 4], "m m", [4, 4, 4], id="measured ones that rise"),
        pytest.param([-1, -3, -2], "", [-3, -3, -2], id="negative ones by their size"),
        pytest.param([float("nan")] * 3, "", [float("nan")] * 3, id="unknown ones"),
    ],
)
def test_falling_with_bits(values: list[float], measured: str, expected: list[float]) -> None:
    where = np.array([[one == "m" for one in measured.ljust(3)]])
    np.testing.assert_array_equal(make_monotonic(np.array([values], dtype=float), where), [expected])


def test_what_rounding_wipes_out() -> None:
    rows = torch.tensor([[0.0, 0.1, 0.4, 1.0], [0.0, 0.0, 0.0, 0.0]])
    np.testing.assert_allclose(measure_wiped_share(rows, [1.0, 0.5, 0.1]), [[2 / 3, 0], [1 / 3, 0], [0, 0]])
    linear = nn.Linear(3, 1)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[0.0, 0.4, 3.0]]))
    assert measure_weight_errors(linear, linear.weight, (2, 8))[1] == [0.5, 0.0]
