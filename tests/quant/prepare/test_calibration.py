"""Which batches observers see: those that were asked for, each once, whatever fails on the way."""

import pytest
import torch
from torch import Tensor, nn

from hessrank import Policy, prepare
from hessrank.data.samples import as_samples
from hessrank.network.sample_batches import SampleBatches
from hessrank.quant.prepare.calibration import calibrate
from hessrank.quant.prepare.tracing import trace

OBSERVERS = ("minmax", "moving-average", "percentile", "mse", "mean-magnitude")


def observed_by(observer: str) -> Policy:
    return Policy.of({"extra_qconfig_dict": {"w_observer": "minmax", "a_observer": observer}})


class Centered(nn.Module):
    """Takes the mean of the samples away, so that they depend on each other."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        return y - y.mean(0, keepdim=True)


@pytest.mark.parametrize("observer", OBSERVERS)
def test_a_batch_that_memory_ran_out_in_is_not_seen_twice(observer: str) -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5)).eval(), torch.randn(7, 4)
    x *= torch.arange(1, 8)[:, None]  # no part of a batch has the range of the whole
    prepared = prepare(model, observed_by(observer), x, batch_size=2)
    expected = prepared.table()["scale"]

    def fail(module: nn.Module, given: object, output: Tensor) -> None:
        if len(output) > 2:
            raise MemoryError

    hook = prepared.get_submodule("2").register_forward_hook(fail)  # by then, the first layers' observers have seen x
    batches = SampleBatches(as_samples(x, 7), model, 4, needs_target=False)
    prepared.set_quantizing(False)
    calibrate(prepared, batches, trace(model, batches.batch(0)).axes)
    hook.remove()
    assert batches.batch_size == 2
    assert prepared.table()["scale"].tolist() == expected.tolist()


def test_samples_that_depend_on_each_other_stay_in_the_batches_that_were_asked_for() -> None:
    torch.manual_seed(0)
    x = torch.randn(8, 4)
    table = prepare(Centered().eval(), observed_by("moving-average"), x, batch_size=4).table()
    found = table[table["tensor"] == "input"]["scale"].item()
    spans = [(part.max().clamp(min=0) - part.min().clamp(max=0)).item() for part in x.split(4)]
    assert found == pytest.approx((0.9 * spans[0] + 0.1 * spans[1]) / 255, rel=1e-5)
