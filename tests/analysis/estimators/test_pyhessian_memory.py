"""PyHessian's recorded runs do not pile up: each is let go of when its layer is done."""

import gc

import torch
from torch import nn

from benchmarks.common import batch_of, work_for
from hessrank.analysis.estimators import ESTIMATORS
from hessrank.network.frozen_model import freeze
from hessrank.network.network import Network


def live_tensors() -> int:
    gc.collect()
    return sum(isinstance(one, torch.Tensor) for one in gc.get_objects())


def test_no_tensor_outlives_a_call() -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 2)).eval(), torch.randn(1, 3)
    with freeze(model):
        work = work_for(Network(model, batch_of(x)), batch_of(x), range(2))
        counts = []
        for _ in range(3):
            assert len(list(ESTIMATORS.resolve("pyhessian")()(work))) == 2
            counts.append(live_tensors())
    assert counts[0] == counts[1] == counts[2]
