"""The layers that the ranking sees are called what the first user's run file calls them."""

from __future__ import annotations

import pytest
import torch

from hessrank.data.batch import Batch
from hessrank.distill.tasks.lowlight import LowLight
from hessrank.network.frozen_model import freeze
from hessrank.network.network import Network

ENDS = [  # the first and the last convolutions, which that run gave 10 bits
    "DBF.DBF_conv1.Conv1",
    "DBF.DBF_conv1.lrelu",
    "DBF.DBF_conv1.Conv2",
    "DBF.DBF_conv9.Conv2",
    "DBF.DBF_conv9.lrelu_dup1",
    "DBF.DBF_out",
    "DBLE.color_conv1.Conv1",
    "DBLE.color_conv1.lrelu",
    "DBLE.color_conv1.Conv2",
    "DBLE.mono_conv1.Conv1",
    "DBLE.mono_conv1.lrelu",
    "DBLE.mono_conv1.Conv2",
    "DBLE.dual_conv9.Conv1",
    "DBLE.dual_conv9.lrelu",
    "DBLE.dual_conv9.Conv2",
    "DBLE.dual_conv9.lrelu_dup1",
    "DBLE.DBLE_out",
]


@pytest.fixture(scope="module")
def network():
    model = LowLight(4, 8)
    with freeze(model):
        yield Network(model, Batch((torch.rand(1, 1, 32, 32),)))


def test_ends_are_layers(network):
    names = [layer.name for layer in network.layers]
    assert [name for name in names if name in ENDS] == ENDS  # all of them, in the order of execution


def test_every_call_is_a_layer(network):
    assert network.traced, network.why_hooks
    assert not network.left_out
    names = [layer.name for layer in network.layers]
    assert names[0] == "raw"
    assert names[-1] == "shuffle"
    assert len(names) == len(set(names)) == 1 + 138 + 8 + 4
