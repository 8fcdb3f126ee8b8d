"""Passes that go on where they were interrupted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from hessrank.analysis.sampling.checkpoint import Checkpoint
from hessrank.analysis.sampling.resumable_pass import Journal
from hessrank.data.batch import Batch
from hessrank.data.samples import as_samples
from hessrank.distributed import Team
from hessrank.network.sample_batches import SampleBatches


class Counts:
    """How often each sample was looked at."""

    def __init__(self) -> None:
        self.counts = np.zeros(4)

    def look(self, batch: Batch) -> None:
        self.counts[list(batch.samples)] += 1

    def share(self, team: Team) -> None:
        self.counts = team.gather(self.counts, 0)

    def state(self) -> dict[str, NDArray[Any]]:
        return {"counts": self.counts}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        self.counts = state["counts"].copy()


def batches() -> SampleBatches:
    return SampleBatches(as_samples(torch.ones(4, 1)), nn.Linear(1, 1), 1, needs_target=False)


def test_every_step_sees_every_sample_once_also_after_a_break(tmp_path: Path) -> None:
    shares: list[float] = []

    def stop(share: float) -> None:
        shares.append(share)
        if len(shares) == 6:
            raise KeyboardInterrupt

    path = tmp_path / "ranking.partial"
    first = Counts()
    with Checkpoint(path, seconds=0) as checkpoint:
        checkpoint.open({}, Team())
        looks = Journal(lambda *_: None, checkpoint).open("looks", batches(), {"a": first})
        with pytest.raises(KeyboardInterrupt):
            looks.run([first.look] * 2, stop)
        interrupted = path.read_bytes()
    path.write_bytes(interrupted)
    assert shares == [1 / 8, 2 / 8, 3 / 8, 4 / 8, 5 / 8, 6 / 8]
    with Checkpoint(path, seconds=0, resume=True) as checkpoint:
        checkpoint.open({}, Team())
        counts = Counts()
        again = Journal(lambda *_: None, checkpoint).open("looks", batches(), {"a": counts})
        assert counts.counts.sum() in (5, 6)
        again.run([counts.look] * 2, shares.append)
    assert counts.counts.tolist() == [2, 2, 2, 2]
    assert shares[-1] == 1
