"""Losses by name."""

from __future__ import annotations

import pytest
import torch

from hessrank.analysis.losses.cross_entropy import CrossEntropy
from hessrank.analysis.losses.custom_loss import CustomLoss
from hessrank.analysis.losses.make_loss import is_registered, make_loss
from hessrank.errors import LossError, OptionError, UnknownNameError


def test_names_options_functions_and_losses_become_losses() -> None:
    loss = make_loss("cross-entropy,ignore_index=255")
    assert isinstance(loss, CrossEntropy)
    assert (loss.ignore_index, loss.name) == (255, "cross-entropy,ignore_index=255")
    assert make_loss(loss) is loss
    assert isinstance(make_loss(CrossEntropy), CrossEntropy)
    assert isinstance(make_loss(lambda output: output.sum()), CustomLoss)
    assert make_loss(torch.nn.functional.mse_loss).name == "mse_loss"


def test_options_do_not_change_what_is_ours() -> None:
    assert is_registered("mse")
    assert is_registered("cross-entropy,ignore_index=255")
    assert not is_registered("loss.py:mse")


@pytest.mark.parametrize(
    ("loss", "error", "why"),
    [
        ("L1", LossError, "zero second derivative"),
        ("msee", UnknownNameError, "'mse'"),
        ("cross-entropy,ignore=255", UnknownNameError, "option of loss 'cross-entropy'.*'ignore_index'"),
        ("cross-entropy,ignore_index=all", OptionError, "write a whole number, as cross-entropy,ignore_index=255"),
        (3, LossError, "not callable"),
    ],
)
def test_what_is_no_loss_is_refused(loss: str, error: type[Exception], why: str) -> None:
    with pytest.raises(error, match=why):
        make_loss(loss)
