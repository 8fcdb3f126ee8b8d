"""The table of peers: what it makes of given figures, who is left out, and that the yardsticks are exact."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.places import ROOT
from torch import nn

from benchmarks.estimators import relative_deviation as of_equal_lengths
from benchmarks.peers import adapter
from benchmarks.peers.__main__ import chosen, how_to_install, interpreter
from benchmarks.peers.adapter import Estimates, Peer, measure
from benchmarks.peers.cases import QUICK, Case, transformer
from benchmarks.peers.exact import traces
from benchmarks.peers.own import prepare_brute_force, prepare_hessrank, prepare_loop
from benchmarks.peers.registry import PEERS
from benchmarks.peers.table import agreement, probes_needed, ratio_of_means, relative_deviation, rows_of, shown
from hessrank.errors import UnknownNameError

ENVIRONMENTS = ROOT / "benchmarks" / "peers_environments"


def a_peer(name: str = "peer", **changes: object) -> Peer:
    peer = Peer(name, name.title(), "", "activations", "Hessian", "no", lambda case: lambda count: {})
    return dataclasses.replace(peer, **changes)  # type: ignore[arg-type]


def found(values: Estimates, probes: int, probe: float, start: float = 0.0, plain: float = 1.0) -> dict[str, object]:
    return {
        "values": values,
        "probes": probes,
        "probe": probe,
        "start": start,
        "plain": plain,
        "setup": 0.5,
        "peak_mib": 300.4,
        "grown_mib": 20.0,
    }


def noisy(exact: dict[str, float], deviation: float, probes: int) -> Estimates:
    """Return values with exactly this relative deviation, corrected for few probes, and this mean."""
    signs = np.resize([1.0, -1.0], probes)
    scale = deviation / np.std(signs, ddof=1)
    return {name: list(value * (1 + scale * signs)) for name, value in exact.items()}


def test_deviation_is_that_of_the_other_benchmark_where_all_have_as_many_values() -> None:
    table = np.random.default_rng(0).normal(3, 1, (5, 12))
    values = {str(i): list(row) for i, row in enumerate(table)}
    assert relative_deviation(values, 12, None) == pytest.approx(np.median(of_equal_lengths(table)))


def test_a_tensor_with_a_quarter_of_the_values_takes_four_times_as_long() -> None:
    numbers = [1.0, 2.0, 3.0, 2.0]
    alone = relative_deviation({"a": numbers}, 4, {"a": 2.0})
    assert relative_deviation({"a": numbers}, 16, {"a": 2.0}) == pytest.approx(2 * alone)


def test_deviation_is_measured_by_the_exact_trace_not_by_a_mean_that_is_noise() -> None:
    values = {"a": [-1.0, 1.0, -1.0, 1.0]}
    assert relative_deviation(values, 4, {"a": 0.5}) == pytest.approx(2 * relative_deviation(values, 4, {"a": 1.0}))
    assert math.isnan(relative_deviation({"a": [1.0]}, 1, {"a": 1.0}))


@pytest.mark.parametrize(("deviation", "probes"), [(0.0, 1), (0.1, 1), (0.25, 7), (1.0, 100)])
def test_probes_to_ten_percent(deviation: float, probes: int) -> None:
    assert probes_needed(deviation) == probes


def test_agreement_is_the_mean_over_groups_of_probes() -> None:
    exact = {"a": 1.0, "b": 2.0, "c": 3.0}
    values = {"a": [1.0, 3.0], "b": [2.0, 2.0], "c": [3.0, 1.0], "unknown": [9.0, 9.0]}
    assert agreement(values, 2, 1, exact) == pytest.approx(0.0)  # one probe in order, one reversed
    assert agreement({**values, "c": [3.0, 4.0]}, 2, 2, exact) == pytest.approx(0.866, abs=1e-3)  # 2, 2, 3.5
    assert ratio_of_means(values, exact) == pytest.approx(1.0)


def test_a_row_compares_with_hessrank_in_plain_passes() -> None:
    exact = {"a": 1.0, "b": 2.0, "c": 4.0}
    ours = found(noisy(exact, 0.2, 64), 64, probe=0.1, start=0.05, plain=0.1)
    theirs = found(noisy(exact, 0.2, 8), 8, probe=2.0, start=1.0, plain=0.2)  # the machine was busier
    first, second = rows_of("net", [(a_peer("hessrank"), ours), (a_peer(), theirs)], {"activations": exact})
    needed = probes_needed(relative_deviation(ours["values"], 64, exact))  # type: ignore[arg-type]
    assert first["passes to 10 %"] == pytest.approx(0.5 + needed)
    assert first["s to 10 %"] == pytest.approx(0.05 + 0.1 * needed)
    assert (first["/ hessrank"], first["Spearman"], first["mean / exact"]) == (1.0, 1.0, pytest.approx(1.0))
    needed = probes_needed(relative_deviation(theirs["values"], 8, exact))  # type: ignore[arg-type]
    assert second["/ hessrank"] == pytest.approx((5 + 10 * needed) / first["passes to 10 %"])
    assert second["after"] == f"1 probe, {15 / first['passes to 10 %']:.3g} × the time"
    assert (second["tensors"], second["peak MiB"], second["error bar"]) == (3, 300, "no")
    assert shown([{**second, "/ hessrank": 16528.4, "s to 10 %": 0.15191}])[0]["/ hessrank"] == "16500"
    assert shown([{**second, "s to 10 %": 0.15191}])[0]["s to 10 %"] == "0.152"


def test_a_peer_that_failed_says_so_and_nobody_takes_hessrank_s_place() -> None:
    exact = {"a": 1.0, "b": 2.0}
    pair = [(a_peer("hessrank"), {"failed": "ValueError: no"}), (a_peer(), found(noisy(exact, 0.1, 4), 4, 1.0))]
    first, second = rows_of("net", pair, {"activations": exact})
    assert first["estimates"] == "ValueError: no"
    assert first["s to 10 %"] == ""
    assert second["/ hessrank"] == ""
    assert second["after"] == "1 probe"


def test_what_is_not_the_hessian_is_measured_by_its_own_mean() -> None:
    values = noisy({"a": 10.0, "b": 20.0}, 0.1, 16)
    peer = a_peer(gauss_newton=True)
    exact = {"activations": {"a": 0.1, "b": 0.3}}
    (apart,) = rows_of("net", [(peer, found(values, 16, 1.0))], {**exact, "full": True})  # type: ignore[dict-item]
    (same,) = rows_of("net", [(peer, found(values, 16, 1.0))], {**exact, "full": False})  # type: ignore[dict-item]
    assert apart["rel. sd"] == pytest.approx(0.1, rel=0.05)
    assert same["rel. sd"] > 5


@pytest.mark.parametrize("returns_each", [True, False])
def test_start_and_probe_are_told_apart(returns_each: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]

    def seconds(work: Callable[[], object]) -> float:
        before = clock[0]
        work()
        return clock[0] - before

    def prepare(case: object) -> Callable[[int], Estimates]:
        clock[0] += 7

        def sample(count: int) -> Estimates:
            clock[0] += 2 + 0.5 * count
            return {"a": [1.0] * (count if returns_each else 1)}

        return sample

    monkeypatch.setattr(adapter, "seconds", seconds)
    result = measure(a_peer(prepare=prepare, returns_each=returns_each), None, 20.0)  # type: ignore[arg-type]
    assert (result.setup, result.start, result.probe) == (7, pytest.approx(2), pytest.approx(0.5))
    assert len(result.values["a"]) == result.probes


def test_who_is_absent_is_left_out_with_the_line_that_installs_it(tmp_path: Path) -> None:
    absent = a_peer("mct", package="no_such_package")
    assert interpreter(absent, None) is None
    assert interpreter(absent, tmp_path) is None
    assert "peers_environments/mct.txt" in how_to_install(absent)
    python = tmp_path / "mct" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    assert interpreter(absent, tmp_path) == str(python)
    assert interpreter(a_peer(package="torch"), tmp_path) == sys.executable
    assert interpreter(a_peer(), None) == sys.executable


def test_only_some() -> None:
    assert {peer.name for peer in chosen(["nncf"])} == {"hessrank", "nncf"}
    assert len(chosen([])) == len(PEERS)
    with pytest.raises(UnknownNameError, match="curvlinops"):
        chosen(["curvlinop"])


def test_every_row_has_a_key_and_every_peer_pinned_requirements() -> None:
    assert len({peer.key for peer in PEERS}) == len(PEERS)
    for name in {peer.name for peer in PEERS if peer.package}:
        lines = (ENVIRONMENTS / f"{name}.txt").read_text().split("\n")
        assert all("==" in line or "@" in line for line in lines if line), name
    assert {path.stem for path in ENVIRONMENTS.iterdir()} == {peer.name for peer in PEERS if peer.package}


def test_exact_weight_and_activation_traces_are_those_of_the_full_hessian() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 5)).double().eval()
    x, label = torch.randn(1, 3, dtype=torch.float64), torch.tensor([2])
    case = Case("tiny", model, x, label, "cross-entropy", nn.CrossEntropyLoss())

    def through(weight: torch.Tensor) -> torch.Tensor:
        return case.criterion(torch.func.functional_call(model, {"0.weight": weight}, (x,)), label)

    def behind(activation: torch.Tensor) -> torch.Tensor:
        return case.criterion(model[1:](activation), label)

    result = traces(case)
    hessian = torch.func.hessian(through)(model[0].weight.detach()).reshape(12, 12)
    assert result["weights"]["0"] == pytest.approx(float(hessian.trace()), rel=1e-10)
    hessian = torch.func.hessian(behind)(model[0](x).detach()).reshape(4, 4)
    assert result["activations"]["0"] == pytest.approx(float(hessian.trace()), rel=1e-6)


def test_our_own_rows_find_the_exact_traces_of_the_quick_network() -> None:
    exact = traces(QUICK["chain"](), probes=64)
    for prepare in (prepare_hessrank, prepare_loop("hutchinson"), prepare_loop("pyhessian")):
        values = prepare(QUICK["chain"]())(8)
        assert set(values) == set(exact["activations"])
        assert ratio_of_means(values, exact["activations"]) == pytest.approx(1, abs=0.1)
    weights = prepare_hessrank(QUICK["chain"](), tensors="weights")(64)
    assert set(weights) == set(exact["weights"])
    assert ratio_of_means(weights, exact["weights"]) == pytest.approx(1, abs=0.15)
    damage = prepare_brute_force(QUICK["chain"]())(1)
    assert agreement(damage, 1, 1, exact["activations"]) > 0.9


def test_the_transformer_has_a_name_for_every_tensor() -> None:
    case = transformer(1, 2)
    weights = set(case.weights())
    assert set(prepare_hessrank(case, tensors="weights")(1)) == weights
    assert weights < set(prepare_hessrank(case)(1))
