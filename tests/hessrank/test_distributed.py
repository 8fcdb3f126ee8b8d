"""Several processes find what one finds; an error of one is everybody's, told once."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from helpers.rankings import RANKINGS, in_processes, ranked
from torch import Tensor, nn

from hessrank.analysis.rank import rank
from hessrank.analysis.sampling.checkpoint import Checkpoint
from hessrank.distributed import Team
from hessrank.errors import DataError, HessrankError


@pytest.mark.parametrize("samples", [0, 1, 5, 8, 9])
@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_the_shares_are_all_samples_in_order(samples: int, size: int) -> None:
    team, shares = Team(), []
    team.size = size
    for place in range(size):
        team.place = place
        shares.append(team.share(samples))
    assert [i for share in shares for i in share] == list(range(samples))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_one_alone_has_it_all() -> None:
    team, table = Team(), np.arange(6.0).reshape(2, 3)
    assert team.is_first
    assert team.gather(table, 1) is table
    assert team.reduce_min(table) is table
    assert team.broadcast("plan") == "plan"
    assert team.gather_values(3) == [3]
    with pytest.raises(DataError), team.raise_together():
        raise DataError("as it is")


def test_what_the_processes_tell_each_other(tmp_path: Path) -> None:
    def work(group: dist.ProcessGroup) -> None:
        team = Team(group)
        own = np.full((2, 7), np.nan)  # nothing of others is read
        own[:, team.share(7)] = np.arange(7.0)[team.share(7)] - 2**0.5
        assert team.gather(own, 1).tolist() == [(np.arange(7.0) - 2**0.5).tolist()] * 2
        counts = np.zeros(7, dtype=np.int64)
        counts[team.share(7)] = 10 + team.place
        assert team.gather(counts, 0).tolist() == [10, 10, 11, 11, 12, 12, 12]
        assert team.reduce_min(np.array([team.place, -team.place])).tolist() == [0, -2]
        assert team.reduce_max(np.array([float(team.place), np.inf])).tolist() == [2, np.inf]
        assert team.broadcast({"says": team.place}) == {"says": 0}
        assert team.gather_values(team.place) == [0, 1, 2]
        assert team.is_first == (team.place == 0)

    assert in_processes(3, tmp_path, work) == [0, 0, 0], _errors(tmp_path)


def test_an_error_of_one_is_raised_by_all(tmp_path: Path) -> None:
    def fail(team: Team, place: int, error: Exception) -> None:
        with team.raise_together():
            if team.place == place:
                raise error

    def work(group: dist.ProcessGroup) -> None:
        team = Team(group)
        with pytest.raises(DataError, match="no such sample"):
            fail(team, 1, DataError("no such sample"))
        with pytest.raises(HessrankError if team.place != 2 else ZeroDivisionError) as caught:
            fail(team, 2, ZeroDivisionError("by zero"))
        if team.place != 2:
            assert "process 2 failed (ZeroDivisionError: by zero)" in str(caught.value)

    assert in_processes(3, tmp_path, work) == [0, 0, 0], _errors(tmp_path)


def _errors(folder: Path) -> list[str]:
    return [path.read_text() for path in folder.glob("error.*")]


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("name", RANKINGS)
def test_several_processes_write_the_bytes_of_one(name: str, count: int, tmp_path: Path) -> None:
    """Samples go one by one, or in batches that are the same: nothing is left to rounding."""
    options = {"batch_size": 1}
    alone = ranked(name, **options)
    alone.to_csv(tmp_path / "alone.csv")

    def work(group: dist.ProcessGroup) -> None:
        found = ranked(name, group=group, **options)
        found.to_csv(tmp_path / f"{dist.get_rank()}.csv")
        notes = [note for note in found.warnings if "processes share" not in note]
        assert notes == alone.warnings

    assert in_processes(count, tmp_path, work) == [0] * count, _errors(tmp_path)
    for place in range(count):
        assert (tmp_path / f"{place}.csv").read_bytes() == (tmp_path / "alone.csv").read_bytes()


def test_other_batches_give_the_same_numbers_to_rounding(tmp_path: Path) -> None:
    alone = ranked("gauss-newton, in batches").to_frame()

    def work(group: dist.ProcessGroup) -> None:
        found = ranked("gauss-newton, in batches", group=group).to_frame()  # batches of 2 of 5 samples fall otherwise
        assert found["layer"].tolist() == alone["layer"].tolist()
        for column in ("trace", "sem", "weight_trace", "act_increase_b4"):
            np.testing.assert_allclose(found[column], alone[column], rtol=1e-5)

    assert in_processes(2, tmp_path, work) == [0, 0], _errors(tmp_path)


def test_processes_without_a_sample_are_told_of(tmp_path: Path) -> None:
    def work(group: dist.ProcessGroup) -> None:
        found = ranked("one sample, in blocks", group=group)
        assert "2 processes share 1 samples: some had nothing to do" in found.warnings

    assert in_processes(2, tmp_path, work) == [0, 0], _errors(tmp_path)


class _Picky(nn.Module):
    """Makes NaN of samples above 2."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.out = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.where(x.amax() > 2, torch.nan, 1.0) * self.fc(x).relu())


def test_a_sample_that_fails_in_one_process_ends_all_with_its_message(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = _Picky(), torch.rand(4, 3)
    x[3] += 5

    def work(group: dist.ProcessGroup) -> None:
        rank(model, x, group=group)

    assert in_processes(2, tmp_path, work) == [1, 1]
    errors = _errors(tmp_path)
    assert len(set(errors)) == 1
    assert "is the first that is NaN, in samples 3" in errors[0]


def test_processes_with_other_data_are_refused(tmp_path: Path) -> None:
    def work(group: dist.ProcessGroup) -> None:
        torch.manual_seed(dist.get_rank())
        x = torch.randn(4, 3)
        torch.manual_seed(0)
        rank(nn.Sequential(nn.Linear(3, 2)), x, group=group)

    assert in_processes(2, tmp_path, work) == [1, 1]
    said = sorted(_errors(tmp_path))
    assert said == [
        "OptionError: process 0 does another ranking than process 1: another data",
        "OptionError: process 1 does another ranking than process 0: another data",
    ]


@pytest.mark.parametrize("name", ["gauss-newton, in batches", "auto, with its pilot"])
def test_what_several_processes_began_one_finishes(name: str, tmp_path: Path) -> None:
    ranked(name, batch_size=1).to_csv(tmp_path / "alone.csv")
    calls = 0

    def interrupt(stage: str, done: int, total: int) -> None:
        nonlocal calls
        calls += stage == "probes"
        if calls == 5:
            raise KeyboardInterrupt

    def work(group: dist.ProcessGroup) -> None:
        checkpoint = Checkpoint(tmp_path / "r.partial", seconds=0)
        ranked(name, batch_size=1, group=group, checkpoint=checkpoint, progress=interrupt)

    assert in_processes(2, tmp_path, work) == [1, 1]
    assert all(error.startswith(("KeyboardInterrupt", "RuntimeError")) for error in _errors(tmp_path))
    with Checkpoint(tmp_path / "r.partial", resume=True) as checkpoint:
        stages = []
        found = ranked(name, batch_size=1, checkpoint=checkpoint, progress=lambda stage, *_: stages.append(stage))
        found.to_csv(tmp_path / "finished.csv")
    assert (tmp_path / "finished.csv").read_bytes() == (tmp_path / "alone.csv").read_bytes()
    assert "ranges" not in stages
    assert "pilot" not in stages
