"""Every animal of the zoo is ranked, or refused in one line; whatever happens, it is the same afterwards."""

from __future__ import annotations

import math
import re
from functools import cache
from typing import Any, NamedTuple

import pytest
import torch
from helpers.zoo import SAMPLES, ZOO, changes, state

from hessrank.analysis.rank import rank
from hessrank.analysis.result.ranking import Ranking
from hessrank.errors import HessrankError

RANKED = [name for name, animal in ZOO.items() if animal.error is None]
REFUSED = [name for name, animal in ZOO.items() if animal.error is not None]
BY_HOOKS = "ranked module by module"
ONE_BY_ONE = "went one by one"


class Outcome(NamedTuple):
    ranking: Ranking | None
    error: Exception | None
    changed: list[str]


@cache
def outcome(name: str, **options: Any) -> Outcome:
    animal = ZOO[name]
    model, data = animal.build(), animal.data()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        before = state(model, data)
        ranking = error = None
        try:
            ranking = rank(model, data, max_probes=4, bits=(4, 8), **options)
        except Exception as caught:
            error = caught
        return Outcome(ranking, error, changes(before, state(model, data)))


def ranking_of(name: str, **options: Any) -> Ranking:
    ranking, error, _ = outcome(name, **options)
    if ranking is None:
        raise AssertionError(f"{name}: {error}") from error
    return ranking


@pytest.mark.parametrize("name", RANKED)
def test_layers_and_traces(name):
    frame = ranking_of(name).to_frame()
    assert tuple(frame.sort_values("execution_index")["layer"]) == ZOO[name].layers
    assert sorted(frame["execution_index"]) == list(range(len(frame)))
    assert frame["trace"].map(math.isfinite).all()
    assert frame["act_increase_b4"].map(math.isfinite).all()
    assert frame["trace"].max() > 0
    assert (frame["trace"] >= 0).all()  # at the model's own output the Hessian is positive semidefinite


@pytest.mark.parametrize("name", RANKED)
def test_what_it_says(name):
    animal, said = ZOO[name], ranking_of(name).warnings
    for note in animal.notes:
        assert any(note in sentence for sentence in said), said
    assert any(BY_HOOKS in sentence for sentence in said) != animal.traced
    usual = ("neighboring pairs", BY_HOOKS, ONE_BY_ONE)
    surprises = [s for s in said if not any(part in s for part in (*usual, *animal.notes))]
    assert surprises == []


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_one_line(name):
    error = outcome(name).error
    kind, pattern = ZOO[name].error
    assert isinstance(error, HessrankError), repr(error)
    assert type(error) is kind
    assert re.search(pattern, str(error))
    assert "\n" not in str(error)


@pytest.mark.parametrize("name", ZOO)
def test_untouched(name):
    assert outcome(name).changed == []


@pytest.mark.parametrize("batch_size", [2, 3])
@pytest.mark.parametrize("name", RANKED)
def test_batch_size_changes_nothing(name, batch_size):
    one, many = ranking_of(name), ranking_of(name, batch_size=batch_size)
    assert any(ONE_BY_ONE in sentence for sentence in many.warnings) != ZOO[name].apart
    expected, got = (r.to_frame().set_index("layer") for r in (one, many))
    assert set(expected.index) == set(got.index)
    got = got.loc[expected.index]
    scale = expected["trace"].abs().max()
    for column in ("trace", "sem", "weight_trace", "act_increase_b8"):
        torch.testing.assert_close(
            torch.tensor(got[column].to_numpy(float)),
            torch.tensor(expected[column].to_numpy(float)),
            rtol=1e-4 if column == "trace" else 1e-3,
            atol=1e-7 * float(scale),
            equal_nan=True,
            msg=lambda text, column=column: f"{column}: {text}",
        )
    assert (got["num_samples"] == SAMPLES).all()


@pytest.mark.parametrize("name", ["tied_embedding", "noisy", "hugging_face_style", "residual"])
def test_the_same_seed_gives_the_same_bytes(name, tmp_path):
    animal, written = ZOO[name], []
    for seed, caller_seed in ((0, 1), (0, 2), (1, 1)):
        path = tmp_path / f"{seed}-{caller_seed}.csv"
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(caller_seed)
            rank(animal.build(), animal.data(), estimator="gauss-newton", max_probes=4, seed=seed).to_csv(path)
        written.append(path.read_bytes())
    assert written[0] == written[1]
    assert written[0] != written[2]


def test_half_precision_is_computed_in_float32_with_the_same_numbers():
    animal = ZOO["bfloat16"]
    single = rank(animal.build().float(), animal.data(), max_probes=4).to_frame().set_index("layer")["trace"]
    half = ranking_of("bfloat16").to_frame().set_index("layer")["trace"]
    assert half.to_dict() == pytest.approx(single.to_dict(), rel=1e-6)


def test_a_wrapper_changes_nothing_but_names():
    plain = {layer: row.trace for layer, row in ranking_of("reused").to_frame().set_index("layer").iterrows()}
    for name in ("data_parallel_like", "wrapped"):
        inside = {
            layer.removeprefix("module."): row.trace
            for layer, row in ranking_of(name).to_frame().set_index("layer").iterrows()
            if layer.startswith("module.")
        }
        assert inside == pytest.approx({layer: plain[layer] for layer in plain if layer != "x"}, rel=1e-5), name
    assert ranking_of("data_parallel").to_frame().equals(ranking_of("reused").to_frame())


def test_in_place_gives_what_out_of_place_gives():
    class OutOfPlace(torch.nn.Module):
        def __init__(self, model: torch.nn.Module) -> None:
            super().__init__()
            self.conv, self.last = model.conv, model.last

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.conv(x)
            return self.last(torch.cat([y[:, :2].relu(), y[:, 2:]], 1))

    animal = ZOO["inplace_on_view"]
    expected = rank(OutOfPlace(animal.build()), animal.data(), max_probes=4)
    got = ranking_of("inplace_on_view")
    for layer in got:
        assert got[layer].trace == pytest.approx(expected[layer].trace, rel=1e-5)
