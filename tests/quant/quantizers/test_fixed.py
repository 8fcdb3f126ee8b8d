"""The calibrated grid as it is."""

from __future__ import annotations

import torch

from hessrank.quant.quantizers.fixed import Fixed
from hessrank.quant.scheme import Scheme


def test_values_and_gradients_are_those_of_torchs_operator() -> None:
    quantizer = Fixed(Scheme(3))
    quantizer.set_range(torch.tensor(-2.0), torch.tensor(1.5))  # a scale of 1/2, the zero point 4
    quantizer.enabled = True
    ours = torch.linspace(-3, 3, 61).requires_grad_()
    theirs = ours.detach().clone().requires_grad_()
    expected = torch.fake_quantize_per_tensor_affine(theirs, 0.5, 4, 0, 7)
    assert torch.equal(quantizer(ours), expected)
    quantizer(ours).sum().backward()
    expected.sum().backward()
    assert torch.equal(ours.grad, theirs.grad)


def test_nothing_is_learned() -> None:
    assert list(Fixed(Scheme(8)).parameters()) == []
