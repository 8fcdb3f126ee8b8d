"""Interrupted rankings go on to the same bytes; what is not theirs is refused."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.rankings import RANKINGS, ranked
from torch import nn

from hessrank.analysis.rank import rank
from hessrank.analysis.result.ranking import Ranking
from hessrank.analysis.sampling.checkpoint import Checkpoint, Section, find_difference
from hessrank.distributed import Team
from hessrank.errors import OptionError, OutputError

PARTIAL = "r.csv.partial"


class _Interrupting:
    """A progress report that interrupts at call number ``at``; calls are numbered through several runs."""

    def __init__(self, at: int) -> None:
        self.calls, self._at = 0, at

    def __call__(self, stage: str, done: int, total: int) -> None:
        self.calls += 1
        if self.calls == self._at:
            raise KeyboardInterrupt


def _bytes(ranking: Ranking, folder: Path) -> tuple[bytes, bytes]:
    ranking.to_csv(folder / "r.csv")
    return (folder / "r.csv").read_bytes(), (folder / "r.json").read_bytes()


@pytest.mark.parametrize("name", RANKINGS)
def test_interrupted_anywhere_it_goes_on_to_the_same_bytes(name: str, tmp_path: Path) -> None:
    """Interrupted after one more batch each time, until nothing is left to interrupt."""
    counting = _Interrupting(0)
    whole = _bytes(ranked(name, progress=counting), tmp_path)
    interruptions, calls = 0, 0
    while True:
        progress = _Interrupting(2)  # the first call's batch is kept, the second's is lost
        try:
            with Checkpoint(tmp_path / PARTIAL, resume=True, seconds=0) as checkpoint:
                again = ranked(name, progress=progress, checkpoint=checkpoint)
        except KeyboardInterrupt:
            interruptions, calls = interruptions + 1, calls + progress.calls - 1
            assert checkpoint.saved
            continue
        break
    assert _bytes(again, tmp_path) == whole
    assert not (tmp_path / PARTIAL).exists()
    assert interruptions >= counting.calls - 3
    assert calls + progress.calls == counting.calls  # no batch was done twice but for the lost ones


def test_what_is_found_is_kept_every_so_many_seconds_only(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), Checkpoint(tmp_path / PARTIAL, seconds=3600) as checkpoint:
        ranked("exact", progress=_Interrupting(9), checkpoint=checkpoint)
    assert not checkpoint.saved
    assert list(tmp_path.iterdir()) == []


def _interrupt(folder: Path, **options: object) -> Checkpoint:
    checkpoint = Checkpoint(folder / PARTIAL, seconds=0)
    with pytest.raises(KeyboardInterrupt), checkpoint:
        ranked("exact", progress=_Interrupting(9), checkpoint=checkpoint, **options)
    return checkpoint


def test_without_resume_an_interrupted_ranking_is_not_written_over(tmp_path: Path) -> None:
    before = _interrupt(tmp_path).path.read_bytes()
    with pytest.raises(OptionError, match=r"r\.csv\.partial: an interrupted ranking is here: go on .*--resume"):
        ranked("exact", checkpoint=Checkpoint(tmp_path / PARTIAL))
    assert (tmp_path / PARTIAL).read_bytes() == before


def _resumed(folder: Path, **options: object) -> None:
    ranked("exact", checkpoint=Checkpoint(folder / PARTIAL, resume=True), **options)


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ({"seed": 1}, "seed was 0, is 1"),
        ({"num_samples": 4}, "another data"),
        ({"estimator": "gauss-newton"}, "estimator was auto, is gauss-newton"),
        ({"bits": (4, 8)}, r"bits was \[4, 6\], is \[4, 8\]"),
        ({"loss": "self-mse"}, "loss was self, is self-mse"),
        ({"batch_size": 2}, "batch_size was 1, is 2"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_another_ranking_is_refused_with_what_differs(option: dict[str, object], says: str, tmp_path: Path) -> None:
    before = _interrupt(tmp_path).path.read_bytes()
    with pytest.raises(
        OptionError, match=f"is of another ranking \\({says}\\): give what it was begun with"
    ) as caught:
        _resumed(tmp_path, **option)
    assert "\n" not in str(caught.value)
    assert (tmp_path / PARTIAL).read_bytes() == before


def test_other_weights_and_another_forward_are_another_ranking(tmp_path: Path) -> None:
    model, x = nn.Sequential(nn.Linear(3, 5), nn.LeakyReLU(0.1), nn.Linear(5, 2)), torch.randn(3, 3)
    partial = tmp_path / PARTIAL
    with pytest.raises(KeyboardInterrupt), Checkpoint(partial, seconds=0) as checkpoint:
        rank(model, x, progress=_Interrupting(7), checkpoint=checkpoint)
    model[1].negative_slope = 0.9
    with pytest.raises(OptionError, match="size of the first output was"):
        rank(model, x, checkpoint=Checkpoint(partial, resume=True))
    model[1].negative_slope = 0.1
    with torch.no_grad():
        model[0].bias += 1
    with pytest.raises(OptionError, match="another model weights"):
        rank(model, x, checkpoint=Checkpoint(partial, resume=True))


@pytest.mark.parametrize("content", [b"", b"layer,rank\n", b"PK\x03\x04 not a zip", b"\x93NUMPY"], ids=repr)
def test_a_file_that_is_no_interrupted_ranking_is_refused_and_left(content: bytes, tmp_path: Path) -> None:
    (tmp_path / PARTIAL).write_bytes(content)
    with pytest.raises(OutputError, match=re.escape("r.csv.partial: holds no interrupted ranking: remove it")):
        _resumed(tmp_path)
    assert (tmp_path / PARTIAL).read_bytes() == content


def test_a_pickle_is_not_opened(tmp_path: Path) -> None:
    with (tmp_path / PARTIAL).open("wb") as file:
        np.savez(file, facts=np.array([object()], dtype=object))
    with pytest.raises(OutputError, match="holds no interrupted ranking"):
        _resumed(tmp_path)


def test_an_archive_that_would_grow_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hessrank.files.size_limits.MOST_BYTES", 1000)
    with (tmp_path / PARTIAL).open("wb") as file:
        np.savez_compressed(file, facts=np.array("{}"), zeros=np.zeros(10**6))
    monkeypatch.setattr("numpy.load", None)
    with pytest.raises(OutputError, match="holds no interrupted ranking"):
        _resumed(tmp_path)


def test_resume_without_anything_there_begins(tmp_path: Path) -> None:
    _resumed(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_block_keeps_the_file_when_it_fails_and_removes_it_when_it_ends_well(tmp_path: Path) -> None:
    with pytest.raises(OutputError), Checkpoint(tmp_path / PARTIAL, seconds=0) as checkpoint:
        ranked("exact", checkpoint=checkpoint).to_csv(tmp_path / "nowhere" / "r.csv")
    assert (tmp_path / PARTIAL).exists()
    with Checkpoint(tmp_path / PARTIAL, resume=True) as checkpoint:
        ranked("exact", checkpoint=checkpoint).to_csv(tmp_path / "r.csv")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["r.csv", "r.json"]


def test_nobody_else_may_write_to_it(tmp_path: Path) -> None:
    with Checkpoint(tmp_path / PARTIAL, seconds=0) as checkpoint:
        checkpoint.claim()
        with pytest.raises(OutputError, match="writing it"), Checkpoint(tmp_path / PARTIAL) as other:
            other.claim()
        ranked("exact", checkpoint=checkpoint)
    assert list(tmp_path.iterdir()) == []


def test_sections_come_back_as_they_were(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / PARTIAL, seconds=0)
    checkpoint.open({"seed": 0, "bits": (4, 8)}, Team())
    kept = Section({"sums": np.array([[0.1, np.nan], [np.inf, -0.0]]), "width": np.array(3)}, {"done": 0.1})
    checkpoint.keep("probes", kept)
    again = Checkpoint(tmp_path / PARTIAL, resume=True)
    again.open({"seed": 0, "bits": (4, 8)}, Team())
    found = again.section("probes")
    assert found is not None
    assert found.facts == {"done": 0.1}
    assert {k: a.tobytes() for k, a in found.arrays.items()} == {k: a.tobytes() for k, a in kept.arrays.items()}
    assert again.section("increases") is None


def test_differences_are_told_in_a_few_words() -> None:
    assert find_difference({"seed": 0}, {"seed": 1}) == "seed was 0, is 1"
    assert find_difference({"data": "a" * 64}, {"data": "b" * 64}) == "another data"
    assert find_difference({}, {"by": "trace"}) == "by was None, is trace"
    assert find_difference({"gone": 1}, {}) == "it was begun by another version"


def _spoiled_facts(facts: dict[str, Any], step: str, value: object) -> dict[str, Any]:
    section = {**facts["sections"]["ranges"], step: value}
    return {**facts, "sections": {**facts["sections"], "ranges": section}}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda facts, arrays: (facts, {n: a[:-1] if a.ndim else a for n, a in arrays.items()}),
        lambda facts, arrays: (facts, {n: a.astype("c16") for n, a in arrays.items()}),
        lambda facts, arrays: (facts, dict(list(arrays.items())[1:])),
        lambda facts, arrays: (_spoiled_facts(facts, "step", "1"), arrays),
        lambda facts, arrays: (_spoiled_facts(facts, "sample", -1), arrays),
        lambda facts, arrays: (_spoiled_facts(facts, "batch_size", 0), arrays),
        lambda facts, arrays: (_spoiled_facts(facts, "halved", None), arrays),
        lambda facts, arrays: ({**facts, "sections": [1]}, arrays),
        lambda facts, arrays: ({**facts, "sections": {"ranges": 1}}, arrays),
        lambda facts, arrays: ({**facts, "key": "k"}, arrays),
        lambda facts, arrays: ([facts], arrays),
    ],
    ids=["shapes", "types", "an array less", "step", "sample", "batch", "halved", "list", "number", "key", "root"],
)
def test_a_file_whose_parts_do_not_fit_is_refused(spoil: Callable[..., tuple[Any, Any]], tmp_path: Path) -> None:
    path = _interrupt(tmp_path).path
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files}
    facts, arrays = spoil(json.loads(str(arrays.pop("facts"))), arrays)
    with path.open("wb") as file:
        np.savez(file, facts=np.array(json.dumps(facts)), **arrays)
    with pytest.raises(OutputError, match=re.escape("r.csv.partial: holds no interrupted ranking: remove it")):
        _resumed(tmp_path)
