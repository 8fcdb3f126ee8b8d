"""PyHessian's vectors lie where the activations lie: shown on the meta device, since not every machine has a GPU."""

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from hessrank.analysis.estimators.probes import Rademacher
from hessrank.analysis.estimators.pyhessian import _estimate_traces
from hessrank.analysis.losses import make_loss
from hessrank.data.batch import Batch
from hessrank.network.layer_facts import SampleAxis
from hessrank.network.layer_names import Layer
from hessrank.network.network import Run


class OneLayer:
    """As much of a network as the estimator looks at: tanh of one activation."""

    def run(self, batch: Batch, tap: Callable[..., Tensor | None], *, differentiable: bool = False) -> Run:
        value = batch.args[0].requires_grad_(differentiable)
        shown = tap(Layer("fc", "Linear", 0, "fc"), None, value)
        return Run((value if shown is None else shown).tanh(), ())


def work_on(device: str) -> tuple[Any, Batch]:
    batch = Batch((torch.full((1, 3), 0.5, device=device),))
    loss = make_loss(lambda output: output.square().sum())
    axes = {"fc": SampleAxis()}
    work = SimpleNamespace(
        network=OneLayer(), loss=loss, axes=axes, probes=Rademacher(0), indices=range(2), batch=batch
    )
    return work, batch


def test_vectors_are_made_where_the_activations_are(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyhessian")
    met: set[str] = set()

    def product(xs: list[Tensor], ys: list[Tensor]) -> Tensor:
        met.update(tensor.device.type for tensor in (*xs, *ys))
        return torch.zeros(())  # a meta tensor has no values to bring back

    monkeypatch.setattr(sys.modules["pyhessian.hessian"], "group_product", product)
    work, batch = work_on("meta")
    assert _estimate_traces(work, batch, "fc") == [0.0, 0.0]
    assert met == {"meta"}


def test_on_the_cpu_the_trace_is_the_hessians() -> None:
    pytest.importorskip("pyhessian")
    work, batch = work_on("cpu")
    a = torch.full((3,), 0.5, dtype=torch.float64)
    hessian = torch.func.hessian(lambda z: z.tanh().square().sum())(a)
    assert _estimate_traces(work, batch, "fc") == pytest.approx(
        [float(hessian.trace())] * 2, rel=1e-5
    )  # it is diagonal
