"""Batches, and what happens when memory runs out."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hessrank.analysis.rank import rank
from hessrank.errors import DataError, ModelError
from hessrank.network.sample_batches import SampleBatches

CPU_MESSAGE = "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried to allocate"


class Greedy(nn.Module):
    """Runs out of memory as soon as it is given more than ``most`` samples."""

    def __init__(self, most: int, error: Exception) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 80))
        self.most, self.error = most, error

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.most:
            raise self.error
        return self.body(x)


ERRORS = [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError(CPU_MESSAGE)]


@pytest.mark.parametrize("error", ERRORS, ids=["gpu", "cpu"])
def test_smaller_batches_give_the_same_numbers_and_are_told(error: Exception) -> None:
    torch.manual_seed(0)
    model, x = Greedy(2, error), torch.randn(7, 4)
    small = rank(model, x, batch_size=5, max_probes=4)
    model.most = 100
    large = rank(model, x, batch_size=5, max_probes=4)
    assert any("memory ran out: went on with batches of 2" in note for note in small.warnings)
    assert not any("memory" in note for note in large.warnings)
    one, other = (ranking.to_frame()["trace"].to_numpy() for ranking in (small, large))
    np.testing.assert_allclose(one, other, rtol=1e-5)


@pytest.mark.parametrize("error", ERRORS, ids=["gpu", "cpu"])
def test_no_memory_for_one_sample_is_one_line(error: Exception) -> None:
    with pytest.raises(ModelError, match="out of memory with one sample"):
        rank(Greedy(0, error), torch.randn(3, 4))


def test_other_errors_are_not_taken_for_it() -> None:
    with pytest.raises(DataError, match=r"does not take this input.*no such thing"):
        rank(Greedy(0, RuntimeError("no such thing")), torch.randn(3, 4))


def test_every_sample_is_worked_on_once_whatever_fails() -> None:
    batches = SampleBatches(torch.arange(7.0)[:, None], nn.Linear(1, 1), 4, needs_target=False)
    seen: list[int] = []

    def work(batch: object) -> None:
        if len(batch.samples) > 2:  # type: ignore[attr-defined]
            raise MemoryError
        seen.extend(batch.samples)  # type: ignore[attr-defined]

    batches.for_each(work)
    assert seen == list(range(7))
    assert batches.batch_size == 2
    assert batches.halved


def test_the_fingerprint_depends_on_content_not_on_batches() -> None:
    x = torch.randn(5, 3)

    def fingerprint(data: Tensor, batch_size: int) -> str:
        return SampleBatches(data, nn.Linear(3, 1), batch_size, needs_target=False).read_all().sha256

    assert fingerprint(x, 1) == fingerprint(x, 4)
    assert fingerprint(x, 1) != fingerprint(x.flip(0), 1)


def test_data_is_brought_to_the_precision_of_the_weights() -> None:
    model = nn.Linear(3, 1).double()
    batch = SampleBatches(torch.ones(2, 3), model, 2, needs_target=False).batch(0, 1)
    assert batch.args[0].dtype == torch.float64
